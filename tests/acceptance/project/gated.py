"""Tasks that stand still until the test opens their gate."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from detent import Context, Retry, task, wait
from tests.acceptance.ledger import VARIABLE, note

ALL = "gate-all"


def is_open() -> bool:
    folder = Path(os.environ[VARIABLE]).parent
    return (folder / ALL).exists() or (folder / f"gate-{os.getpid()}").exists()


async def opened() -> None:
    while not is_open():  # noqa: ASYNC110 - the gate is a file, so that a test opens it for any process
        await asyncio.sleep(0.02)


@task(retry=Retry(max_attempts=2, min_timeout="50ms"))
async def gated(n: int, ctx: Context) -> int:
    """Return its process id, so that the test knows whose result counted."""
    note("begin", ctx)
    await opened()
    note("end", ctx)
    return os.getpid()


@task(retry=Retry(max_attempts=2, min_timeout="50ms"))
async def gated_parent(n: int, ctx: Context) -> int:
    """Behind the gate, see whether the run is still this process's."""
    note("begin", ctx)
    await opened()
    try:
        await child.trigger(n)
    except BaseException as error:
        note("refused", ctx, type(error).__name__)
        raise
    note("end", ctx)
    return os.getpid()


@task
async def child(n: int, ctx: Context) -> int:
    note("child", ctx, str(n))
    return n


@task
async def waiting(n: int, ctx: Context) -> int:
    note("begin", ctx)
    await wait.for_(hours=1)
    note("end", ctx)
    return os.getpid()


@task
async def blocking(seconds: float, ctx: Context) -> int:
    """Stop the event loop, as no task should."""
    note("begin", ctx)
    time.sleep(seconds)  # noqa: ASYNC251 - that is the point
    note("end", ctx)
    return os.getpid()
