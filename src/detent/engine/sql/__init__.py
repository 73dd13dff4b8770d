"""The engine's statements: one `.sql` file a table, each statement under `-- name: …`. Loaded once."""

from __future__ import annotations

import re
from importlib import resources

_HEADER = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load() -> dict[str, bytes]:
    """Return every statement by its name; raises `ValueError` when a name stands twice."""
    statements: dict[str, bytes] = {}
    for file in sorted(resources.files(__name__).iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".sql"):
            continue
        parts = _HEADER.split(file.read_text("utf-8"))
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            if name in statements:
                raise ValueError(f"the statement {name} stands twice in engine/sql; rename one")
            statements[name] = text.strip().encode()
    return statements


STATEMENTS = load()
