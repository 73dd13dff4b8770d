"""Tasks for runners in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from detent import Context, Retry, task, wait


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


@task(isolation="process")
def reads_alone(path: str) -> int:
    Path(path).read_text()
    return os.getpid()


@task(isolation="process", machine="micro", retry=Retry(oom_machine="medium-1x"))
def hungry(ctx: Context) -> str:
    """Needs more than there is of the first machine, and less than of the second."""
    assert ctx.machine is not None
    return f"{len(bytearray(512 * 1024**2)) >> 20} MB on {ctx.machine.name}"


@task(isolation="process", machine="micro", retry=Retry(oom_machine="medium-1x"))
async def killed_on_the_first(ctx: Context) -> str:
    """As the kernel kills a process whose cgroup is full: also while the run is not on the CPU."""
    assert ctx.machine is not None
    if ctx.machine.name == "micro":
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGKILL)
        await asyncio.Event().wait()
    return ctx.machine.name


@task
async def reads_then_waits(path: str) -> int:
    await asyncio.to_thread(Path(path).read_text)
    await wait.for_(hours=1)
    return os.getpid()


@task(max_duration="20ms")
async def swallows_its_end() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


@task
async def holds_the_loop() -> None:
    while True:
        pass


@task
def tells_then_spins(path: str) -> int:
    """Writes to this pipe once it executes, the first time."""
    if not _marked(Path(f"{path}-mark")):
        Path(path).write_text("spinning")
        while True:
            pass
    return os.getpid()


def _marked(path: Path) -> bool:
    if path.exists():
        return True
    path.touch()
    return False


FIRST_A = os.environ.get("A")
"""As it was when this was loaded."""


@task
async def variables() -> list[str | None]:
    return [FIRST_A, *map(os.environ.get, ("A", "B", "OWN"))]
