"""What a run reads of its own usage, by where its code executes; and the time that an attempt has used up in other processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta

import pytest

from detent import heartbeats, task, usage, wait
from detent.protocol.execution import Isolation
from detent.protocol.status import RunStatus
from detent.worker.attempt import Attempt
from detent.worker.telling import EventKind
from tests.sdk.fake_run import lease
from tests.worker.conftest import StartRig


def told() -> list[float | None]:
    """What there is after some work."""
    sum(range(300_000))
    used = usage.current()
    return [used.attempt_duration, used.run_duration, used.cpu_time, used.peak_memory]


async def told_async() -> list[float | None]:
    return told()


@pytest.mark.parametrize(
    ("function", "isolation", "has_cpu", "has_memory"),
    [
        (told_async, None, False, False),
        (told, None, True, False),
        (told_async, "process", True, True),
        (told, "process", True, True),
    ],
)
async def test_what_is_known_depends_on_where_the_code_executes(
    start_rig: StartRig, function: Callable[..., object], isolation: str | None, has_cpu: bool, has_memory: bool
) -> None:
    task(id="work", **({} if isolation is None else {"isolation": isolation}))(function)  # type: ignore[call-overload]
    async with start_rig(is_solo=isolation is not None) as rig:
        outcome = await rig.run("work")
    attempt, run, cpu, memory = json.loads(outcome.output or "")
    assert 0 < attempt == run < 60
    assert (cpu is not None, memory is not None) == (has_cpu, has_memory)
    assert cpu is None or 0 < cpu < 60
    assert memory is None or 10_000_000 < memory < 10_000_000_000


async def test_a_thread_that_the_run_has_started_has_no_time_of_the_run(start_rig: StartRig) -> None:
    @task
    def work() -> bool:
        return asyncio.run(asyncio.to_thread(usage.current)).cpu_time is None

    async with start_rig() as rig:
        assert (await rig.run("work")).output == "true"


async def test_waits_are_left_out_of_what_is_read_and_of_what_is_stored(start_rig: StartRig) -> None:
    @task
    async def work() -> float:
        with usage.measure() as spent:
            await wait.for_(hours=1)
        return spent.duration

    async with start_rig() as rig:
        run_id = await rig.trigger("work")
        await rig.saw(run_id, EventKind.WAITING)
        rig.clock.advance(timedelta(hours=2))
        outcome = await rig.end_of(run_id)
        record = await rig.record(run_id)
    assert 0 <= float(outcome.output or "") < 60
    assert 0 < record.usage_duration < 60


async def test_an_attempt_that_goes_on_elsewhere_has_used_up_what_it_had_before() -> None:
    clock = [1000.0]
    attempt = Attempt(lease(active=80.0, attempt_active=50.0), Isolation.ASYNC, None, lambda: clock[0])  # type: ignore[arg-type]
    clock[0] += 5
    assert attempt.elapsed == 55


async def test_a_thread_that_computes_ends_when_its_time_is_over(start_rig: StartRig) -> None:
    ended: list[str] = []

    @task(max_duration="20ms")
    def work() -> None:
        try:
            while True:
                heartbeats.sync.yield_()
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    async with start_rig() as rig:
        outcome = await rig.run("work")
    assert (outcome.status, ended) == (RunStatus.TIMED_OUT, ["MaxDurationExceededError"])


async def test_a_coroutine_that_computes_lets_its_neighbours_go_on_and_ends_when_its_time_is_over(start_rig: StartRig) -> None:
    @task(max_duration="300ms")
    async def computes() -> None:
        while True:
            await heartbeats.yield_()

    @task
    async def neighbour() -> str:
        return "well"

    async with start_rig() as rig:
        computing = await rig.trigger("computes")
        assert (await rig.run("neighbour")).output == '"well"'
        assert (await rig.end_of(computing)).status is RunStatus.TIMED_OUT
