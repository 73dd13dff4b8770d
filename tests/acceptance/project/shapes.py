"""Runs of every shape that durable code has. Each waits in its midst for an hour or longer, or for a token of tag `awaited`.

What they do before and after that is told to the ledger, in steps: done again, it would be told twice.
"""

from __future__ import annotations

import asyncio
import random

from detent import Context, Local, Next, logger, metadata, step, task, wait
from tests.acceptance.ledger import note

NEVER = 3e8
"""Seconds: also by a clock that runs three thousand times as fast."""


@step
async def mark(name: str) -> str:
    note("effect", Context.current(), name)
    return name


async def nap(name: str) -> str:
    await wait.for_(hours=1)
    return await mark(name)


@task
async def double(n: int) -> int:
    return 2 * n


@task
async def double_later(n: int) -> int:
    await wait.for_(hours=1)
    return 2 * n


# ---- several things at once ----


@task
async def gathering() -> list[object]:
    return list(await asyncio.gather(mark("a"), double.call(1), nap("b"), double_later.call(2)))


@task
async def grouping() -> list[object]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in (mark("a"), double_later.call(1), nap("b"))]
    return [await mark("c"), *[each.result() for each in tasks]]


@task
async def in_order_of_completion() -> list[str]:
    asked = [double_later.call(2), double.call(1)]
    return [await mark(str(await answer)) for answer in asyncio.as_completed(asked)]


@task
async def first_of_two() -> list[str]:
    asked = [asyncio.create_task(each) for each in (double_later.call(2), double.call(1))]
    done, others = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    return [await mark(str(each.pop().result() if each is done else await each.pop())) for each in (done, others)]


@task
async def beside_a_library() -> list[str]:
    await _library()
    first = asyncio.create_task(nap("a"))
    await _library()
    second = asyncio.create_task(mark("b"))
    return [await first, await second]


async def _library() -> None:
    """Starts tasks of its own, another number each time."""
    await asyncio.gather(*(asyncio.sleep(0) for _ in range(random.randrange(5))))


# ---- time-outs ----


@task
async def in_time() -> list[str]:
    async with asyncio.timeout(NEVER):
        return [await mark("a"), await nap("b")]


@task
async def too_late_before() -> list[str]:
    try:
        async with asyncio.timeout(0.2):
            await wait.for_(NEVER)
    except TimeoutError:
        await mark("too late")
    return [await nap("b")]


@task
async def too_late_afterwards() -> str:
    token = await wait.create_token()
    try:
        async with asyncio.timeout(3600):
            await mark("a")
            await wait.for_token(token)
    except TimeoutError:
        return await mark("too late")
    return "in time"


# ---- one thing after the other ----


@task
def threaded() -> list[object]:
    first = [mark.sync("a"), double.sync.call(1)]
    wait.sync.for_(hours=1)
    return [*first, mark.sync("b"), double.sync.call(2)]


@task
async def looping() -> list[str]:
    found = [await mark("again") for _ in range(3)]
    await wait.for_(hours=1)
    return [*found, *[await mark("again") for _ in range(2)]]


@step
async def outer() -> list[str]:
    return [await mark("a"), await nap("b")]


@task
async def nesting() -> list[str]:
    return [*await outer(), await mark("c")]


@task
async def approved() -> list[object]:
    token = await wait.create_token(output=int, tags="awaited")
    return [await mark("a"), await wait.for_token(token).unwrap(), await mark("b")]


@task
async def approved_beforehand() -> list[object]:
    token = await wait.create_token(output=int, tags="awaited")
    return [await mark("a"), await nap("b"), await wait.for_token(token).unwrap()]


@task
async def with_child() -> list[object]:
    return [await mark("a"), await double_later.call(1), await mark("b")]


@task
async def with_batch() -> list[object]:
    await mark("a")
    done = await double_later.batch_trigger_and_wait(range(3))
    return [*[run.unwrap() for run in done.runs], await mark("b")]


# ---- what is around the code ----


@task
async def telling() -> object:
    metadata.increment("told")
    logger.info("before")
    await metadata.flush()
    await nap("a")
    logger.info("after")
    return metadata.increment("told").get("told")


Connection = Local[str]("connection")


async def connect(next: Next) -> None:
    Connection.set(await mark("connected"))
    await next()


def wait_begins(ctx: Context) -> None:
    note("effect", ctx, "on_wait")


def wait_is_over(ctx: Context) -> None:
    note("effect", ctx, "on_resume")


@task(middleware=connect, on_wait=wait_begins, on_resume=wait_is_over)
async def surrounded() -> str:
    await nap("a")
    return Connection.get_or_raise()
