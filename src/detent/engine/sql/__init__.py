"""The engine's statements: one `.sql` file a table, each statement under `-- name: …`. Loaded once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources

_HEADER = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_PARAMETER = re.compile(r"%\((\w+)\)s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """`text`: with `$1`, `$2` … for the values of `names`."""

    name: str
    text: bytes
    names: tuple[str, ...]


def load() -> dict[str, Statement]:
    """Return every statement by its name; raises `ValueError` when a name stands twice."""
    statements: dict[str, Statement] = {}
    for file in sorted(resources.files(__name__).iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".sql"):
            continue
        parts = _HEADER.split(file.read_text("utf-8"))
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            if name in statements:
                raise ValueError(f"the statement {name} stands twice in engine/sql; rename one")
            statements[name] = _statement(name, text.strip())
    return statements


def _statement(name: str, text: str) -> Statement:
    places: dict[str, str] = {}
    numbered = _PARAMETER.sub(lambda found: places.setdefault(found[1], f"${len(places) + 1}"), text)
    return Statement(name=name, text=numbered.encode(), names=tuple(places))


STATEMENTS = load()
