"""For how long a run was executed: without queue and waits, over all attempts, in the round trips that there are anyway."""

from __future__ import annotations

from datetime import timedelta

import pytest

from detent.protocol.ids import RunId
from tests.engine.stage import Stage, Worker


async def executes_for(stage: Stage, seconds: float) -> None:
    """What is leased was leased so long ago. (`leased_at` is told by the real clock, which no test moves.)"""
    await stage.query(
        "update detent.runs set leased_at = clock_timestamp() - make_interval(secs => %s) where fence is not null", seconds
    )


async def usage(stage: Stage, run_id: RunId) -> float:
    return (await stage.run(run_id)).usage_duration


async def test_a_run_in_the_queue_has_used_nothing(stage: Stage, worker: Worker) -> None:
    run_id = await stage.trigger()
    await stage.query("update testing.clock set shift = shift + interval '1 hour'")
    assert await usage(stage, run_id) == 0


async def test_the_time_counts_while_it_executes_and_no_more_after_its_end(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await executes_for(stage, 10)
    assert await usage(stage, lease.run_id) == pytest.approx(10, abs=5)
    await executes_for(stage, 20)
    await worker.succeed(lease)
    assert await usage(stage, lease.run_id) == pytest.approx(20, abs=5)


async def test_waits_are_left_out_and_the_next_lease_tells_what_was_before(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await executes_for(stage, 10)
    await worker.sleep(lease, hours=1)
    await stage.query("update testing.clock set shift = shift + interval '2 hours'")
    await stage.tick()
    resumed = await worker.lease_one()
    assert (resumed.active, resumed.attempt_active) == (pytest.approx(10, abs=5), resumed.active)
    await executes_for(stage, 100)
    await worker.succeed(resumed)
    assert await usage(stage, lease.run_id) == pytest.approx(110, abs=10)


async def test_attempts_add_up_and_each_begins_at_nothing(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await executes_for(stage, 10)
    await worker.fail(lease, retry_in=timedelta())
    await stage.a_moment_passes()
    again = await worker.lease_one()
    assert (again.active, again.attempt_active) == (pytest.approx(10, abs=5), 0)
    await executes_for(stage, 100)
    await worker.fail(again)
    assert await usage(stage, lease.run_id) == pytest.approx(110, abs=10)


async def test_what_is_done_again_after_a_hand_back_counts_for_the_run_and_not_against_the_attempt(
    stage: Stage, worker: Worker
) -> None:
    lease = await stage.leased(worker)
    await executes_for(stage, 10)
    await worker.hand_back(lease)
    again = await worker.lease_one()
    assert (again.active, again.attempt_active) == (pytest.approx(10, abs=5), 0)


async def test_a_run_that_was_cancelled_while_it_executed_keeps_its_time(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await executes_for(stage, 10)
    await stage.engine.cancel_runs([lease.run_id], "enough")
    assert await usage(stage, lease.run_id) == pytest.approx(10, abs=5)
