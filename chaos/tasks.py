"""Tasks that execute programs."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

from chaos.effects import note
from chaos.plan import ABORTED, GIVEN_UP, STEP_FAILED, TIMED_OUT, Job, Node, combine, origin
from detent import AbortTaskRunError, Context, Retry, batch, logger, step, task, tasks, wait
from detent.sdk.result import Result
from detent.sdk.token import Token

T = TypeVar("T")

RETRY = Retry(max_attempts=8, min_timeout="20ms", max_timeout="100ms")
AT_ONCE = Retry(max_attempts=4, min_timeout="1ms", max_timeout="2ms")
GIVEN_UP_AFTER = 0.15
NEVER = 3e8
"""Seconds: also by a clock that runs three thousand times as fast."""


class PlannedError(Exception):
    pass


@task(retry=RETRY)
async def program(job: Job, ctx: Context) -> int:
    node, values = job.program, []
    for i, part in enumerate(node.parts):
        values.append(await _do(part, ctx))
        _fail_if_planned(node, i, ctx)
    return _end(node, values)


@task(retry=RETRY)
def threaded(job: Job, ctx: Context) -> int:
    node, values = job.program, []
    for i, part in enumerate(node.parts):
        values.append(_do_blocking(part, ctx))
        _fail_if_planned(node, i, ctx)
    return _end(node, values)


def _fail_if_planned(node: Node, done: int, ctx: Context) -> None:
    if ctx.attempt.number <= node.failures and done == node.fails_after:
        raise PlannedError(f"attempt {ctx.attempt.number} of {node.failures + 1}")


def _end(node: Node, values: list[int]) -> int:
    if node.aborts:
        raise AbortTaskRunError("planned")
    return combine(node.n, values)


# ---- what async programs do ----


async def _do(node: Node, ctx: Context) -> int:
    logger.info(f"at {node.name}")
    found = await _OPERATIONS[node.kind](node, ctx)
    logger.info(f"behind {node.name}")
    return found


async def _sequence(node: Node, ctx: Context) -> int:
    return combine(node.n, [await _do(part, ctx) for part in node.parts])


async def _gather(node: Node, ctx: Context) -> int:
    return combine(node.n, list(await asyncio.gather(*(_do(part, ctx) for part in node.parts))))


async def _as_completed(node: Node, ctx: Context) -> int:
    """The order goes into a step's arguments: a replay in another order is found out."""

    async def numbered(i: int) -> tuple[int, int]:
        return i, await _do(node.parts[i], ctx)

    found: dict[int, int] = {}
    for completed in asyncio.as_completed([numbered(i) for i in range(len(node.parts))]):
        i, result = await completed
        found[i] = result
        await _take(f"{node.name} order", "".join(map(str, found)), 0)
    return combine(node.n, [found[i] for i in range(len(node.parts))])


async def _step(node: Node, ctx: Context) -> int:
    return await _take(node.name, "", node.n)


async def _take(name: str, extra: str, n: int) -> int:
    value, nonce = await step(name, _execute, name, extra, n)
    note("recorded", name + extra, nonce)
    return value


async def _execute(name: str, extra: str, n: int) -> tuple[int, str]:
    nonce = uuid.uuid4().hex
    note("executed", name + extra, nonce)
    await asyncio.sleep(n % 5 / 1000)
    return combine(n, []), nonce


def _execute_blocking(name: str, extra: str, n: int) -> tuple[int, str]:
    nonce = uuid.uuid4().hex
    note("executed", name + extra, nonce)
    time.sleep(n % 5 / 1000)
    return combine(n, []), nonce


async def _step_retried(node: Node, ctx: Context) -> int:
    tries = 0

    @step(name=node.name, retry=AT_ONCE)
    async def unlucky(name: str, n: int) -> tuple[int, str]:
        nonlocal tries
        tries += 1
        if tries <= n % 3:
            raise PlannedError(f"try {tries}")
        return await _execute(name, "", n)

    value, nonce = await unlucky(node.name, node.n)
    note("recorded", node.name, nonce)
    return value


async def _step_failing(node: Node, ctx: Context) -> int:
    async def fails() -> None:
        raise PlannedError(node.name)

    try:
        await step(node.name, fails)
    except PlannedError as error:
        if str(error) != node.name:
            raise AssertionError("a step was given the failure of another") from error
        return STEP_FAILED
    raise AssertionError("a step that failed was given a result")


async def _sleep(node: Node, ctx: Context) -> int:
    await wait.for_(seconds=6 + node.n)
    return combine(node.n, [])


async def _token(node: Node, ctx: Context) -> int:
    token = await _asked(node)
    return await wait.for_token(token).unwrap()


async def _token_before(node: Node, ctx: Context) -> int:
    token = await _asked(node)
    await wait.for_(hours=1)
    return await wait.for_token(token).unwrap()


async def _token_late(node: Node, ctx: Context) -> int:
    token = await wait.create_token(output=int, timeout="10m")
    note("token", node.name, f"late {token.id} 0")
    result = await wait.for_token(token)
    assert not result.ok, "a token that nobody completed in time has an output"
    return TIMED_OUT


async def _asked(node: Node) -> Token[int]:
    token = await wait.create_token(output=int, tags=[node.kind])
    note("token", node.name, f"{node.kind} {token.id} {combine(node.n, [])}")
    return token


async def _given_up(node: Node, ctx: Context) -> int:
    token = await wait.create_token() if node.n % 2 else None
    try:
        async with asyncio.timeout(GIVEN_UP_AFTER):
            if token is None:
                await wait.for_(seconds=NEVER)
            else:
                await wait.for_token(token)
    except TimeoutError:
        return GIVEN_UP
    raise AssertionError("a wait without end has ended")


async def _in_time(node: Node, ctx: Context) -> int:
    async with asyncio.timeout(NEVER):
        return await _sleep(node, ctx)


async def _child(node: Node, ctx: Context) -> int:
    (part,) = node.parts
    return _outcome(await tasks.trigger_and_wait(part.kind, Job(part, origin(node, 0, ctx.attempt.number))))


async def _batch(node: Node, ctx: Context) -> int:
    done = await batch.trigger_and_wait(
        [tasks.item(part.kind, Job(part, origin(node, i, ctx.attempt.number))) for i, part in enumerate(node.parts)]
    )
    return combine(node.n, [_outcome(run) for run in done.runs])


def _outcome(result: Result[T]) -> int:
    return int(str(result.output)) if result.ok else ABORTED


_OPERATIONS: dict[str, Callable[[Node, Context], Awaitable[int]]] = {
    "sequence": _sequence,
    "gather": _gather,
    "as_completed": _as_completed,
    "step": _step,
    "step_retried": _step_retried,
    "step_failing": _step_failing,
    "sleep": _sleep,
    "token": _token,
    "token_before": _token_before,
    "token_late": _token_late,
    "given_up": _given_up,
    "in_time": _in_time,
    "child": _child,
    "batch": _batch,
}


# ---- what plain functions do ----


def _do_blocking(node: Node, ctx: Context) -> int:
    logger.info(f"at {node.name}")
    match node.kind:
        case "step":
            value, nonce = step.sync(node.name, _execute_blocking, node.name, "", node.n)
            note("recorded", node.name, nonce)
            return value
        case "sleep":
            wait.sync.for_(seconds=6 + node.n)
            return combine(node.n, [])
        case "token":
            token = wait.sync.create_token(output=int)
            note("token", node.name, f"token {token.id} {combine(node.n, [])}")
            return wait.sync.for_token(token).unwrap()
        case "child":
            (part,) = node.parts
            return _outcome(tasks.sync.trigger_and_wait(part.kind, Job(part, origin(node, 0, ctx.attempt.number))))
        case _:
            assert node.kind == "batch"
            items = [
                tasks.item(part.kind, Job(part, origin(node, i, ctx.attempt.number)))
                for i, part in enumerate(node.parts)
            ]
            return combine(node.n, [_outcome(run) for run in batch.sync.trigger_and_wait(items).runs])
