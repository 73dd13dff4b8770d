"""How long a run may wait for its first start."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from detent.protocol.flow import Pause
from detent.protocol.idempotency import Idempotency
from detent.protocol.status import RunStatus
from tests.database import Clock
from tests.engine.stage import Stage, queue, queue_ref, task

KEY = Idempotency(key="a" * 64, user_key="a", scope="global")


async def pass_time(stage: Stage, clock: Clock, seconds: float) -> None:
    clock.advance(timedelta(seconds=seconds))
    await stage.tick()


@pytest.mark.parametrize(
    ("at_trigger", "of_task", "expected"),
    [(10.0, None, 10), (None, 20.0, 20), (10.0, 20.0, 10), (0.0, 20.0, None), (None, None, None)],
)
async def test_the_ttl_of_the_trigger_goes_before_that_of_the_task_and_nothing_switches_it_off(
    stage: Stage, clock: Clock, at_trigger: float | None, of_task: float | None, expected: int | None
) -> None:
    await stage.worker(task("work", ttl=of_task))
    run_id = await stage.trigger(ttl=at_trigger)
    for seconds in (10, 20):
        assert await stage.status(run_id) is RunStatus.QUEUED
        await pass_time(stage, clock, 10)
        if expected == seconds:
            break
    assert await stage.status(run_id) is (RunStatus.EXPIRED if expected else RunStatus.QUEUED)


async def test_an_expired_run_says_that_it_was_not_started_in_time(stage: Stage, clock: Clock) -> None:
    await stage.worker("work")
    run_id = await stage.trigger(ttl=10.0)
    await pass_time(stage, clock, 10)
    error = (await stage.run(run_id)).error
    assert error is not None
    assert (error.code, "10 s" in error.message) == ("TASK_RUN_EXPIRED", True)


async def test_a_run_whose_time_is_over_is_not_leased_although_nobody_has_ticked(stage: Stage, clock: Clock) -> None:
    worker = await stage.worker("work", limits=[queue("task/work", 1)])
    late, other = await stage.trigger(ttl=10.0), await stage.trigger()
    clock.advance(timedelta(seconds=10))
    assert [lease.run_id for lease in await worker.lease()] == [other]
    await stage.tick()
    assert await stage.status(late) is RunStatus.EXPIRED


async def test_a_run_that_was_leased_in_time_never_expires(stage: Stage, clock: Clock) -> None:
    worker = await stage.worker("work")
    lease = await stage.leased(worker, ttl=10.0)
    await pass_time(stage, clock, 20)
    await worker.hand_back(lease)
    await pass_time(stage, clock, 20)
    lease = await worker.lease_one()
    await worker.fail(lease, retry_in=timedelta(0))
    await pass_time(stage, clock, 20)
    lease = await worker.lease_one()
    await worker.sleep(lease, seconds=1)
    await pass_time(stage, clock, 20)
    assert (await worker.lease_one()).run_id == lease.run_id


async def test_the_ttl_of_a_delayed_run_begins_when_its_delay_ends(stage: Stage, clock: Clock) -> None:
    await stage.worker("work")
    run_id = await stage.trigger(ttl=10.0, delay=timedelta(seconds=100))
    await pass_time(stage, clock, 100)
    await pass_time(stage, clock, 9)
    assert await stage.status(run_id) is RunStatus.QUEUED
    await pass_time(stage, clock, 1)
    assert await stage.status(run_id) is RunStatus.EXPIRED


@pytest.mark.parametrize("options", [{"ttl": 10.0}, {}, {"ttl": 10.0, "delay": timedelta(seconds=5)}])
async def test_the_ttl_of_a_run_of_an_unknown_task_begins_when_somebody_has_it(
    stage: Stage, clock: Clock, options: dict[str, Any]
) -> None:
    run_id = await stage.trigger(**options)
    await pass_time(stage, clock, 100)
    assert await stage.status(run_id) is RunStatus.PENDING_VERSION
    await stage.worker(task("work", ttl=10.0))
    await pass_time(stage, clock, 9)
    assert await stage.status(run_id) is RunStatus.QUEUED
    await pass_time(stage, clock, 1)
    assert await stage.status(run_id) is RunStatus.EXPIRED


async def test_the_ttl_of_a_run_in_an_undeclared_queue_begins_when_somebody_has_it(stage: Stage, clock: Clock) -> None:
    await stage.worker("work")
    run_id = await stage.trigger(ttl=10.0, queue="emails")
    await pass_time(stage, clock, 100)
    assert await stage.status(run_id) is RunStatus.PENDING_VERSION
    await stage.worker("work", limits=[queue("emails")])
    await pass_time(stage, clock, 9)
    assert await stage.status(run_id) is RunStatus.QUEUED
    await pass_time(stage, clock, 1)
    assert await stage.status(run_id) is RunStatus.EXPIRED


async def test_a_registration_gives_no_more_time_to_runs_that_wait_already(stage: Stage, clock: Clock) -> None:
    await stage.worker("work")
    run_id = await stage.trigger(ttl=10.0)
    await pass_time(stage, clock, 9)
    await stage.worker("work", "other", limits=[queue("task/work", 5)])
    await pass_time(stage, clock, 1)
    assert await stage.status(run_id) is RunStatus.EXPIRED


async def test_a_ttl_goes_on_while_the_queue_is_paused(stage: Stage, clock: Clock) -> None:
    await stage.worker("work")
    run_id = await stage.trigger(ttl=10.0)
    await stage.change(Pause(ref=queue_ref("task/work")))
    await pass_time(stage, clock, 10)
    assert await stage.status(run_id) is RunStatus.EXPIRED


async def test_a_parent_wakes_with_the_error_when_its_child_expires(stage: Stage, clock: Clock) -> None:
    worker = await stage.worker("work")
    await stage.worker("item")
    parent = await stage.leased(worker)
    await worker.call(parent, task_id="item", ttl=10.0)
    await pass_time(stage, clock, 10)
    (result,) = (await worker.lease_one()).results
    assert result.child is not None
    assert result.child.error is not None
    assert (result.child.status, result.child.error.code) == (RunStatus.EXPIRED, "TASK_RUN_EXPIRED")


async def test_a_batch_counts_an_item_that_expires(stage: Stage, clock: Clock) -> None:
    worker = await stage.worker("work")
    await stage.worker("item")
    parent = await stage.leased(worker)
    batch_id, _ = await worker.batch(parent, 2, task_id="item", ttl=10.0)
    await pass_time(stage, clock, 10)
    assert (await worker.lease_one()).run_id == parent.run_id
    results = await stage.engine.read_batch_results(batch_id)
    assert [result.status for result in results] == [RunStatus.EXPIRED] * 2


async def test_an_expired_run_frees_its_key(stage: Stage, clock: Clock) -> None:
    await stage.worker("work")
    first = await stage.trigger(ttl=10.0, idempotency=KEY)
    assert await stage.trigger(idempotency=KEY) == first
    await pass_time(stage, clock, 10)
    assert await stage.trigger(idempotency=KEY) != first
