"""Noticing that source files were saved."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Iterator
from pathlib import Path

from watchfiles import Change, awatch

SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})
MOST_FOLDERS = 2_000
_GATHER_MS, _STEP_MS = 200, 20
"""An editor may save a file in several steps."""


async def saves(roots: Iterable[Path], files: Iterable[Path] = ()) -> AsyncGenerator[set[Path], None]:
    """Yield the Python files below some folders, and the other *files*, that were saved, made or removed, a few at a time.

    Each folder is watched by itself: what a whole tree holds besides (a database, environments) is large and never rests.
    """
    roots, others = tuple(roots), frozenset(files)
    while True:
        folders = watched(roots)
        async for changes in _changes(folders | {file.parent for file in others}, others):
            changed = {Path(file) for _, file in changes}
            if sources := {file for file in changed if file.suffix == ".py" or file in others}:
                yield sources
            if any(file.is_dir() or file in folders for file in changed):
                break


def watched(roots: Iterable[Path]) -> set[Path]:
    """Return the folders that may hold source files."""
    found: set[Path] = set()
    for root in roots:
        for folder in _below(root):
            found.add(folder)
            if len(found) == MOST_FOLDERS:
                return found
    return found


def _below(root: Path) -> Iterator[Path]:
    for place, folders, _ in os.walk(root):
        folders[:] = [name for name in folders if _is_wanted(Path(place, name))]
        yield Path(place)


def _is_wanted(folder: Path) -> bool:
    return not folder.name.startswith(".") and folder.name not in SKIPPED and not (folder / "pyvenv.cfg").exists()


def _changes(folders: set[Path], others: Collection[Path]) -> AsyncIterator[set[tuple[Change, str]]]:
    def matters(change: Change, file: str) -> bool:
        return Path(file) in others or _is_source(change, file)

    return awatch(*folders, watch_filter=matters, debounce=_GATHER_MS, step=_STEP_MS, recursive=False)


def _is_source(change: Change, file: str) -> bool:
    """Whether a change matters: of a Python file, or of a folder that must be watched, or no longer."""
    path = Path(file)
    return path.suffix == ".py" or (change is not Change.modified and not path.suffix and _is_wanted(path))
