"""Tasks that do what no task should, and neighbours that have to live with it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from detent import Context, Retry, task
from tests.acceptance.ledger import note
from tests.acceptance.project.gated import opened

TWICE = Retry(max_attempts=2, min_timeout="50ms", max_timeout="50ms")


@task
async def neighbour(n: int, ctx: Context) -> int:
    note("begin", ctx)
    await opened()
    note("end", ctx)
    return n


@task(on_lost="fail")
async def beginning_once(ctx: Context) -> str:
    note("begin", ctx)
    await opened()
    return "well"


@task(on_lost="fail", retry=TWICE, isolation="process")
def exiting_alone_once(ctx: Context) -> None:
    note("begin", ctx)
    os._exit(3)


@task(retry=TWICE)
async def exiting(ctx: Context) -> None:
    note("begin", ctx)
    os._exit(3)


@task(retry=TWICE)
async def exiting_at_first(ctx: Context) -> str:
    note("begin", ctx)
    if ctx.attempt.number == 1:
        os._exit(3)
    return "well"


@task(retry=TWICE)
def exiting_thread(ctx: Context) -> None:
    note("begin", ctx)
    os._exit(3)


@task(retry=1)
async def segfaulting(ctx: Context) -> None:
    note("begin", ctx)
    ctypes.string_at(0)


@task(retry=TWICE, max_duration=2)
async def holding_the_gil(ctx: Context) -> None:
    note("begin", ctx)
    ctypes.PyDLL(None).sleep(1000)


@task(retry=TWICE, max_duration=2)
def holding_the_gil_in_a_thread(ctx: Context) -> None:
    note("begin", ctx)
    ctypes.PyDLL(None).sleep(1000)


@task(retry=TWICE, max_duration=2)
async def looping(ctx: Context) -> None:
    note("begin", ctx)
    while True:
        pass


@task(retry=TWICE, max_duration=2)
def looping_in_a_thread(ctx: Context) -> None:
    note("begin", ctx)
    while True:
        time.sleep(0.01)


@task
async def swallowing(ctx: Context) -> None:
    note("begin", ctx)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            note("swallowed", ctx)


@task(retry=TWICE, max_duration=1)
async def swallowing_in_overtime(ctx: Context) -> None:
    note("begin", ctx)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            note("swallowed", ctx)


@task(retry=TWICE)
async def killing_itself(ctx: Context) -> None:
    note("begin", ctx)
    os.kill(os.getpid(), signal.SIGKILL)


@task(retry=1)
async def exiting_behind_its_back(ctx: Context) -> None:
    """End the process from a thread that detent knows nothing of, while nobody is on the CPU."""
    note("begin", ctx)
    threading.Timer(0.2, os._exit, [3]).start()
    await asyncio.sleep(3600)


@task
async def stopping_the_loop(ctx: Context) -> None:
    note("begin", ctx)
    loop = asyncio.get_running_loop()
    loop.stop()
    await asyncio.sleep(0.1)
    loop.call_soon(sys.exit, 3)
    await asyncio.sleep(0.1)


@task(retry=TWICE, isolation="process")
def exiting_alone(ctx: Context) -> None:
    note("begin", ctx)
    os._exit(3)


@task(retry=TWICE, isolation="process", max_duration=2)
def looping_alone(ctx: Context) -> None:
    note("begin", ctx)
    while True:
        pass


class WordlessError(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def _raise(what: str) -> None:
    raised = RAISED[what]()
    raise raised


RAISED: dict[str, Callable[[], BaseException]] = {
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "CancelledError": asyncio.CancelledError,
    "GeneratorExit": GeneratorExit,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "BaseException": BaseException,
    "ExceptionGroup": lambda: ExceptionGroup("several", [ValueError(1), SystemError(2)]),
    "WordlessError": WordlessError,
    "RecursionError": RecursionError,
    "MemoryError": MemoryError,
    "ValueError": lambda: ValueError("a\0b\ud800" * 1_000_000),
}


@task(retry=1)
async def raising(what: str) -> None:
    _raise(what)


@task(retry=1)
def raising_in_a_thread(what: str) -> None:
    _raise(what)


@task(retry=1)
async def raising_in_a_task(what: str) -> None:
    async def inner() -> None:
        _raise(what)

    await asyncio.create_task(inner())
