"""Pointers: files in a project, where coding agents look for skills, that lead to those of the installed package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from detent.skills.skill import FILE_NAME, Skill, pages

FOLDERS = (".claude/skills", ".cursor/skills", ".github/skills", ".agents/skills")
"""Where the agents of several makers look."""
DEFAULT = ".agents/skills"
_PREFIX = "detent-"
"""Before the names of pointers, which stand among the skills of other packages."""

_TEXT = """\
---
name: {prefix}{skill.name}
description: {skill.description}
---

The skill itself comes with the installed detent, so that it is always of the version that this project uses. Print it, and read
all of it before you write or change a task:

    detent skills show {skill.name}

Where the command is not at hand, read `{file}`. The pages that it draws from lie in `{pages}`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    file: Path
    is_changed: bool
    """It was not there, or said something else."""


def install(skill: Skill, root: Path, folder: Path | None = None) -> list[Pointer]:
    """Write the pointers to a skill into a project, and return them.

    They go into *folder*; by default into those of `FOLDERS` that are there, else into `DEFAULT`.
    """
    chosen = [folder] if folder is not None else [Path(name) for name in FOLDERS if (root / name).is_dir()]
    return [_write(skill, root, root / each) for each in chosen or [Path(DEFAULT)]]


def _write(skill: Skill, root: Path, folder: Path) -> Pointer:
    file = folder / f"{_PREFIX}{skill.name}" / FILE_NAME
    text = _TEXT.format(prefix=_PREFIX, skill=skill, file=_shown(skill.file, root), pages=_shown(pages(), root))
    is_changed = not file.is_file() or file.read_text(encoding="utf-8") != text
    if is_changed:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return Pointer(file=file, is_changed=is_changed)


def _shown(path: Path, root: Path) -> Path:
    """Return a path that holds for everybody who has the project, where there is one: an environment often lies in it."""
    return path.relative_to(root) if path.is_relative_to(root) else path
