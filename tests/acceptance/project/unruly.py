"""Tasks that do what no task should, and neighbours that have to live with it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time

from detent import Context, Retry, task
from tests.acceptance.ledger import note
from tests.acceptance.project.gated import is_open

TWICE = Retry(max_attempts=2, min_timeout="50ms", max_timeout="50ms")


@task
async def neighbour(n: int, ctx: Context) -> int:
    note("begin", ctx)
    while not is_open():
        await asyncio.sleep(0.02)
    note("end", ctx)
    return n


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
