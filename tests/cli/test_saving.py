from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from detent.cli import saving


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)


def test_folders_that_never_rest_are_not_watched(tmp_path: Path) -> None:
    make(tmp_path, "tasks/deep", ".detent/postgres", "node_modules/x", "tasks/__pycache__", "env/lib")
    (tmp_path / "env" / "pyvenv.cfg").touch()
    assert saving.watched([tmp_path]) == {tmp_path, tmp_path / "tasks", tmp_path / "tasks" / "deep"}


def test_no_more_folders_are_watched_than_the_system_can_bear(tmp_path: Path) -> None:
    make(tmp_path, *(f"f{number}" for number in range(saving.MOST_FOLDERS + 10)))
    assert len(saving.watched([tmp_path])) == saving.MOST_FOLDERS


async def test_save_of_a_python_file_is_noticed_also_in_a_new_folder(tmp_path: Path) -> None:
    make(tmp_path, "tasks")
    changes = saving.saves([tmp_path])
    try:
        assert await saved(changes, tmp_path / "tasks" / "a.py") == {tmp_path / "tasks" / "a.py"}
        make(tmp_path, "tasks/new")
        assert tmp_path / "tasks" / "new" / "b.py" in await saved(changes, tmp_path / "tasks" / "new" / "b.py")
    finally:
        await changes.aclose()


def save(file: Path, number: int) -> None:
    file.write_text(f"# {number}")


async def saved(changes: AsyncGenerator[set[Path]], file: Path) -> set[Path]:
    """Save a file until that is noticed: it may be saved before anybody watches."""
    noticed = asyncio.ensure_future(anext(changes))
    for number in range(200):
        save(file, number)
        done, _ = await asyncio.wait([noticed], timeout=0.1)
        if done:
            break
    found: set[Path] = await noticed
    return found
