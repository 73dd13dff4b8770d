"""Tasks that do what a plan says."""

from __future__ import annotations

import asyncio
import time

from detent import Context, Retry, batch, task, tasks, wait
from tests.acceptance.ledger import note
from tests.acceptance.plan import Plan, combine

RETRY = Retry(max_attempts=5, min_timeout="20ms", max_timeout="100ms")


class PlannedError(Exception):
    pass


@task(retry=RETRY)
async def leaf(plan: Plan, ctx: Context) -> int:
    note("begin", ctx)
    await asyncio.sleep(plan.n % 7 / 1000)
    return _end(plan, [], ctx)


@task(retry=RETRY)
def threaded(plan: Plan, ctx: Context) -> int:
    note("begin", ctx)
    time.sleep(plan.n % 7 / 1000)
    return _end(plan, [], ctx)


@task(retry=RETRY)
async def chain(plan: Plan, ctx: Context) -> int:
    note("begin", ctx)
    return _end(plan, [await _call(part) for part in plan.parts], ctx)


@task(retry=RETRY)
async def fan(plan: Plan, ctx: Context) -> int:
    note("begin", ctx)
    done = await batch.trigger_and_wait([tasks.item(part.kind, part) for part in plan.parts])
    return _end(plan, [run.unwrap() for run in done.runs], ctx)


@task(retry=RETRY)
async def sleeper(plan: Plan, ctx: Context) -> int:
    note("begin", ctx)
    await wait.for_(hours=1)
    first = await _call(plan.parts[0])
    await wait.for_(minutes=20)
    return _end(plan, [first, *[await _call(part) for part in plan.parts[1:]]], ctx)


@task(retry=RETRY)
def threaded_parent(plan: Plan, ctx: Context) -> int:
    note("begin", ctx)
    first = tasks.sync.call(plan.parts[0].kind, plan.parts[0])
    wait.sync.for_(minutes=30)
    second = tasks.sync.call(plan.parts[1].kind, plan.parts[1])
    return _end(plan, [first, second], ctx)


@task(retry=RETRY)
def threaded_fan(plan: Plan, ctx: Context) -> int:
    note("begin", ctx)
    done = batch.sync.trigger_and_wait([tasks.item(part.kind, part) for part in plan.parts])
    return _end(plan, [run.unwrap() for run in done.runs], ctx)


@task(retry=RETRY)
async def spawner(plan: Plan, ctx: Context) -> int:
    note("begin", ctx)
    first, *others = plan.parts
    await tasks.trigger(first.kind, first)
    await batch.trigger([tasks.item(part.kind, part) for part in others])
    return _end(plan, [], ctx)


@task(retry=RETRY)
async def gathering(plan: Plan, ctx: Context) -> int:
    note("begin", ctx)
    _, *values = await asyncio.gather(wait.for_(hours=1), *(_call(part) for part in plan.parts))
    return _end(plan, list(values), ctx)


async def _call(part: Plan) -> int:
    value = await tasks.call(part.kind, part)
    assert isinstance(value, int)
    return value


def _end(plan: Plan, values: list[object], ctx: Context) -> int:
    if ctx.attempt.number <= plan.failures:
        raise PlannedError(f"attempt {ctx.attempt.number} of {plan.attempts}")
    note("end", ctx)
    return combine(plan.n, [int(str(value)) for value in values])
