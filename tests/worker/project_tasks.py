"""Tasks for runners in processes of their own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from detent import Context, task, wait


@task
async def pid() -> int:
    return os.getpid()


@task
def reads(path: str) -> str:
    """Ends when somebody writes to this pipe."""
    return Path(path).read_text()


@task
async def waits_then_pid() -> int:
    await wait.for_(hours=1)
    return os.getpid()


@task
async def marks_then_hangs(path: str, ctx: Context) -> str:
    if _marked(Path(path)):
        return "second time"
    await asyncio.Event().wait()
    return ""


@task(isolation="process")
def alone() -> int:
    return os.getpid()


def _marked(path: Path) -> bool:
    if path.exists():
        return True
    path.touch()
    return False
