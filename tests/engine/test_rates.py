"""How many start in a time: never more than so many in any window."""

from __future__ import annotations

from datetime import timedelta

import pytest

from detent.protocol.flow import Override, Rate
from detent.protocol.leases import Lease
from tests.database import Clock
from tests.engine.stage import ENVIRONMENT, Stage, Worker, limit, limit_ref, task

PERIOD = 60.0
STEP = timedelta(seconds=2)


async def rated(
    stage: Stage, starts: int, *, period: float = PERIOD, per_key: bool = False, version: str | None = None
) -> Worker:
    rate = Rate(starts=starts, period=period, per_key=per_key)
    return await stage.worker(task("work", limits=("api",)), limits=[limit("api", rate=rate)], version=version)


async def lease_later(stage: Stage, worker: Worker, clock: Clock, **by: float) -> list[Lease]:
    clock.advance(timedelta(**by))
    await stage.tick()
    return await worker.lease()


@pytest.mark.parametrize("per_key", [False, True])
async def test_never_more_start_than_the_rate_in_any_window(stage: Stage, clock: Clock, per_key: bool) -> None:
    worker = await rated(stage, 3, per_key=per_key)
    keys = ("a", "b") if per_key else (None,)
    for key in keys:
        await stage.trigger_many(12, concurrency_key=key)
    starts: dict[str | None, list[float]] = {key: [] for key in keys}
    for seconds in range(0, 300, 2):
        for lease in await worker.lease():
            starts[lease.concurrency_key].append(clock.now().timestamp())
            await worker.succeed(lease)
        assert all(
            len(times) >= 3 * (1 + int(seconds // (PERIOD * 21 / 20 + 3))) or len(times) == 12
            for times in starts.values()
        )
        clock.advance(STEP)
        await stage.tick()
    for times in starts.values():
        assert len(times) == 12
        assert all(later - earlier > PERIOD for earlier, later in zip(times, times[3:], strict=False))


async def test_a_rate_lets_others_start_as_soon_as_starts_leave_the_window(stage: Stage, clock: Clock) -> None:
    worker = await rated(stage, 2)
    await stage.trigger_many(4)
    assert len(await worker.lease()) == 2
    assert await lease_later(stage, worker, clock, seconds=PERIOD - 1) == []
    assert len(await lease_later(stage, worker, clock, seconds=1 + PERIOD / 20)) == 2


async def test_a_rate_of_nothing_lets_nothing_start(stage: Stage, clock: Clock) -> None:
    worker = await rated(stage, 0)
    await stage.trigger()
    assert await worker.lease() == []
    assert await lease_later(stage, worker, clock, days=1) == []


async def test_a_run_that_goes_on_does_not_count_as_a_start(stage: Stage, clock: Clock) -> None:
    worker = await rated(stage, 1)
    first = await stage.leased(worker)
    await stage.trigger()
    await worker.sleep(first, seconds=10)
    (resumed,) = await lease_later(stage, worker, clock, seconds=10)
    assert resumed.run_id == first.run_id
    await worker.hand_back(resumed)
    assert [lease.run_id for lease in await worker.lease()] == [first.run_id]
    assert len(await lease_later(stage, worker, clock, seconds=PERIOD * 21 / 20)) == 1


async def test_a_retry_counts_as_a_start(stage: Stage, clock: Clock) -> None:
    worker = await rated(stage, 1)
    first = await stage.leased(worker)
    await worker.fail(first, retry_in=timedelta(seconds=1))
    assert await lease_later(stage, worker, clock, seconds=5) == []
    assert [lease.attempt for lease in await lease_later(stage, worker, clock, seconds=PERIOD * 21 / 20)] == [2]


async def test_a_rate_holds_beside_a_bound(stage: Stage, clock: Clock) -> None:
    rate = Rate(starts=3, period=PERIOD)
    worker = await stage.worker(task("work", limits=("api",)), limits=[limit("api", total=2, rate=rate)])
    await stage.trigger_many(9)
    leases = await worker.lease()
    assert len(leases) == 2
    await worker.succeed(*leases)
    assert len(await worker.lease()) == 1
    assert len(await lease_later(stage, worker, clock, seconds=PERIOD * 21 / 20)) == 1


async def test_a_run_that_another_limit_stops_does_not_count(stage: Stage) -> None:
    rate = Rate(starts=2, period=PERIOD)
    tasks = [task("work", limits=("api", "gpu")), task("other", limits=("api",))]
    worker = await stage.worker(*tasks, limits=[limit("api", rate=rate), limit("gpu", total=1)])
    await stage.trigger_many(3)
    assert len(await worker.lease()) == 1
    await stage.trigger_many(3, "other")
    assert [lease.task_id for lease in await worker.lease()] == ["other"]


@pytest.mark.parametrize(("before", "after"), [(PERIOD, PERIOD / 60), (PERIOD / 60, PERIOD), (PERIOD, PERIOD * 2)])
async def test_starts_count_in_the_window_of_a_rate_that_changes(
    stage: Stage, clock: Clock, before: float, after: float
) -> None:
    worker = await rated(stage, 2, period=before)
    await stage.trigger_many(6)
    assert len(await worker.lease()) == 2
    await stage.change(Override(ref=limit_ref("api"), rate=Rate(starts=2, period=after)))
    assert await worker.lease() == []
    assert len(await lease_later(stage, worker, clock, seconds=after * 21 / 20)) == 2
    assert len(await lease_later(stage, worker, clock, seconds=after * 21 / 20)) == 2


async def test_a_rate_may_be_raised_and_taken_away(stage: Stage) -> None:
    worker = await rated(stage, 1)
    await stage.trigger_many(9)
    assert len(await worker.lease()) == 1
    await stage.change(Override(ref=limit_ref("api"), rate=Rate(starts=3, period=PERIOD)))
    assert len(await worker.lease()) == 2
    await stage.change(Override(ref=limit_ref("api"), rate=None))
    assert len(await worker.lease()) == 6


async def test_a_rate_counts_the_starts_of_all_workers(stage: Stage) -> None:
    worker = await rated(stage, 3)
    other = await stage.session(worker.version)
    await stage.trigger_many(9)
    assert len(await worker.lease(**{"async": 2})) == 2
    assert len(await other.lease(**{"async": 2})) == 1


async def test_an_environment_at_its_limit_uses_up_no_starts(stage: Stage, clock: Clock) -> None:
    worker = await rated(stage, 2)
    await stage.change(Override(ref=ENVIRONMENT, total=1))
    await stage.trigger_many(3)
    (first,) = await worker.lease()
    clock.advance(timedelta(seconds=PERIOD * 2))
    assert await worker.lease() == []
    await worker.succeed(first)
    assert len(await worker.lease()) == 1
