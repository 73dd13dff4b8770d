"""Parallel code that is stopped after each of its answers, and goes on in another runner to the same result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from detent import step, task, tasks, wait
from detent.engine.backend import EngineBackend
from detent.protocol import ids
from detent.protocol.fence import Holder
from detent.protocol.runs import RunOutcome
from detent.protocol.tokens import TokenCompletion, TokenRequest
from detent.protocol.waits import Delivery
from detent.worker import timers
from detent.worker.telling import EventKind
from tests.worker.conftest import StartRig

Reached = Callable[[], Awaitable[None]]
Program = Callable[[Reached], Awaitable[list[int]]]


async def gathering(reached: Reached) -> list[int]:
    async def one(number: int) -> int:
        value = int(str(await tasks.call("double", number)))
        await reached()
        return value

    return list(await asyncio.gather(*(one(number) for number in range(3))))


async def in_a_group(reached: Reached) -> list[int]:
    order: list[int] = []

    async def one(number: int) -> None:
        order.append(int(str(await tasks.call("double", number))))
        await reached()

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(one(number))
    again = int(str(await tasks.call("double", order[0])))
    await reached()
    return [*sorted(order), again - 2 * order[0]]


async def with_the_first(reached: Reached) -> list[int]:
    async def one(number: int) -> int:
        return int(str(await tasks.call("double", number)))

    running = [asyncio.create_task(one(number)) for number in range(3)]
    done, others = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    await reached()
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    first = min(one.result() for one in done)
    # Answered from the record: after another order, what came first would not be half of it.
    again = int(str(await tasks.call("double", first)))
    await reached()
    return [again - 2 * first]


async def by_steps(reached: Reached) -> list[int]:
    async def one(number: int) -> int:
        value = await step("work", effect, number)
        answered.append(value)
        await reached()
        return value

    return list(await asyncio.gather(*(one(number) for number in range(3))))


effects: list[int] = []
answered: list[int] = []


async def effect(number: int) -> int:
    effects.append(number)
    return number


PROGRAMS: dict[Program, list[int]] = {
    gathering: [0, 2, 4],
    in_a_group: [0, 2, 4, 0],
    with_the_first: [0],
    by_steps: [0, 1, 2],
}


@pytest.mark.parametrize("stop_at", [1, 2, 3, 4])
@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_run_stopped_after_any_answer_comes_to_the_same_result(
    start_rig: StartRig, program: Program, stop_at: int
) -> None:
    effects.clear()
    answered.clear()
    stopped, starts = asyncio.Event(), 0

    @task(id="double")
    async def double(number: int) -> int:
        return number * 2

    @task(retry=1)
    async def parallel() -> list[int]:
        nonlocal starts
        starts += 1
        own, count = starts, 0

        async def reached() -> None:
            nonlocal count
            count += 1
            if own == 1 and count >= stop_at:
                stopped.set()
                await asyncio.Event().wait()

        result = await program(reached)
        stopped.set()
        return result

    async with start_rig() as rig:
        run_id = await rig.trigger("parallel")
        async with asyncio.timeout(20):
            await stopped.wait()
        kept = set(answered)
    async with start_rig() as rig:
        outcome = await rig.end_of(run_id)
    assert outcome.output is not None, outcome.error
    values = [int(number) for number in outcome.output.strip("[]").split(",")]
    assert values == PROGRAMS[program]
    assert all(effects.count(number) == 1 for number in kept)


def test_no_timer_overtakes_what_a_slow_replay_gives(start_rig: StartRig) -> None:
    # A runner's own loop, which knows whose timers are whose.
    with asyncio.Runner(loop_factory=timers.new_loop) as loop:
        came_first, outcome = loop.run(_race_replayed(start_rig))
    assert outcome.output == came_first, outcome.error


async def _race_replayed(start_rig: StartRig) -> tuple[str, RunOutcome]:
    """Return what came first before the run was stopped, and how it ended."""
    stopped, lives = asyncio.get_running_loop().create_future(), 0

    async def given_up() -> int:
        try:
            async with asyncio.timeout(0.05):
                await wait.for_(hours=1)
        except TimeoutError:
            return 0
        raise AssertionError("an hour has passed")

    async def by_steps(is_slow: bool) -> int:
        await step("first", effect, 1)
        if is_slow:
            time.sleep(0.1)  # noqa: ASYNC251 - a process that was stopped finds its timers over like this
        return await step("second", effect, 2)

    @task(retry=1)
    async def racing() -> int:
        nonlocal lives
        lives += 1
        is_replay = lives > 1
        for completed in asyncio.as_completed([given_up(), by_steps(is_replay)]):
            first = await step("came first", effect, await completed)
            break
        if not is_replay:
            stopped.set_result(first)
            await asyncio.Event().wait()
        return first

    async with start_rig() as rig:
        run_id = await rig.trigger("racing")
        async with asyncio.timeout(20):
            came_first = await stopped
    async with start_rig() as rig:
        return str(came_first), await rig.end_of(run_id)


async def test_what_comes_before_a_replay_asks_for_it_is_kept_for_it(
    start_rig: StartRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect, lives = EngineBackend.collect, 0
    is_replaying, collected, may_go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def collect_once(backend: EngineBackend, holders: Sequence[Holder]) -> list[Delivery]:
        if collected.is_set():
            return []  # it may be that nothing else has a runner ask again
        deliveries = await collect(backend, holders)
        if deliveries:
            collected.set()
        return deliveries

    async def number_of(token: str) -> int:
        return await wait.for_token(token, output=int).unwrap()

    @task(retry=1)
    async def waiting(tokens: list[str]) -> list[int]:
        nonlocal lives
        lives += 1
        first, endless = (asyncio.create_task(number_of(token)) for token in tokens[:2])
        if lives > 1:
            is_replaying.set()
            await may_go_on.wait()
        last = await number_of(tokens[2])
        endless.cancel()
        return [await first, last]

    monkeypatch.setattr(EngineBackend, "collect", collect_once)
    tokens = [ids.new_waitpoint_id() for _ in range(3)]
    first, _, last = tokens
    async with start_rig() as rig:
        await rig.backend.create_tokens([TokenRequest(waitpoint_id=token) for token in tokens])
        run_id = await rig.trigger("waiting", list(tokens))
        await rig.saw(run_id, EventKind.WAITING)
    async with start_rig() as rig:
        await rig.backend.complete_tokens([TokenCompletion(waitpoint_id=first, output="1")])
        async with asyncio.timeout(20):
            await is_replaying.wait()
            await rig.backend.complete_tokens([TokenCompletion(waitpoint_id=last, output="2")])
            await collected.wait()
        may_go_on.set()
        outcome = await rig.end_of(run_id)
    assert outcome.output == "[1,2]", outcome.error
