"""detent among a project's dependencies: whether it is there, and the command that adds it."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from detent.cli.failure import UsageError

_NAME = re.compile(r"detent(?![\w.-])", re.IGNORECASE)
_PYPROJECT = "pyproject.toml"


def missing_from(root: Path) -> bool:
    """Whether a folder has a pyproject.toml that does not name detent."""
    return (root / _PYPROJECT).is_file() and not any(map(_NAME.match, _named(_read(root))))


def command(root: Path) -> list[str] | None:
    """Return what adds it with the tool that the project uses; None where that cannot be told."""
    tools = _table(_read(root), "tool")
    for tool in ("uv", "poetry"):
        if tool in tools or (root / f"{tool}.lock").is_file():
            return [tool, "add", "detent"]
    return None


def add(root: Path) -> None:
    """Add it. Raises `UsageError` when there is no tool to do it, or that fails."""
    adding = command(root)
    if adding is None:
        raise UsageError(f'{root / _PYPROJECT} is neither of uv nor of poetry: add "detent" to its dependencies yourself')
    try:
        subprocess.run(adding, cwd=root, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(f"`{' '.join(adding)}` failed in {root}: {error}; do it yourself, then call this again") from error


def _named(pyproject: Mapping[str, object]) -> Iterator[str]:
    """Yield every dependency that is named, of whatever group."""
    project = _table(pyproject, "project")
    groups = [*_table(pyproject, "dependency-groups").values(), *_table(project, "optional-dependencies").values()]
    for listed in [project.get("dependencies", []), *groups]:
        yield from (each for each in cast("list[object]", listed) if isinstance(each, str))
    poetry = _table(_table(pyproject, "tool"), "poetry")
    yield from _table(poetry, "dependencies")


def _read(root: Path) -> Mapping[str, object]:
    try:
        return tomllib.loads((root / _PYPROJECT).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{root / _PYPROJECT} cannot be read: {error}; mend it first") from error


def _table(parent: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = parent.get(name, {})
    return cast("Mapping[str, object]", found) if isinstance(found, dict) else {}
