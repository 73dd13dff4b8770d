"""Attempts: started, completed, failed, tried again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from detent.protocol.attempts import Completed, Failed, Succeeded, TimedOut
from detent.protocol.fence import Stale
from detent.protocol.status import RunStatus
from tests.database import Clock
from tests.engine.stage import BOOM, SOON, Stage, Worker, holder, journal_of, task


async def test_a_started_run_shows_as_executing(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.start(lease)
    await worker.start(lease)
    assert await stage.status(lease.run_id) is RunStatus.EXECUTING


async def test_a_stale_worker_cannot_show_a_run_as_executing(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.hand_back(lease)
    again = await worker.lease_one()
    await worker.start(lease)
    assert await stage.status(again.run_id) is RunStatus.DEQUEUED


@pytest.mark.parametrize("is_started", [False, True])
async def test_a_success_is_recorded_with_its_output(stage: Stage, worker: Worker, is_started: bool) -> None:
    lease = await stage.leased(worker, payload='{"n":1}')
    if is_started:
        await worker.start(lease)
    assert await worker.succeed(lease, output='{"b": "\\u0000"}') == [
        Completed(run_id=lease.run_id, status=RunStatus.COMPLETED)
    ]
    run = await stage.run(lease.run_id)
    assert (run.status, run.output, run.error, run.payload) == (
        RunStatus.COMPLETED,
        '{"b": "\\u0000"}',
        None,
        '{"n":1}',
    )
    assert run.finished_at is not None
    assert run.started_at is not None
    assert (run.attempt, run.version, run.waiting_reason) == (1, worker.version, None)


async def test_a_success_may_have_no_output(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.succeed(lease, output=None)
    assert (await stage.run(lease.run_id)).output is None


async def test_a_failure_without_retry_is_final(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    assert await worker.fail(lease) == [Completed(run_id=lease.run_id, status=RunStatus.FAILED)]
    run = await stage.run(lease.run_id)
    assert (run.status, run.error) == (RunStatus.FAILED, BOOM)
    (attempt,) = run.attempts
    assert (attempt.number, attempt.status, attempt.error) == (1, RunStatus.FAILED, BOOM)
    assert attempt.started_at is not None
    assert attempt.finished_at == run.finished_at


async def test_a_run_that_never_began_has_no_attempts(stage: Stage, worker: Worker) -> None:
    run_id = await stage.trigger()
    assert (await stage.run(run_id)).attempts == ()
    await stage.engine.cancel_runs([run_id], "not wanted")
    assert (await stage.run(run_id)).attempts == ()


async def test_a_run_cancelled_before_its_retry_has_the_attempt_that_failed(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.fail(lease, retry_in=SOON)
    await stage.engine.cancel_runs([lease.run_id], "not wanted")
    attempts = (await stage.run(lease.run_id)).attempts
    assert [(attempt.number, attempt.status) for attempt in attempts] == [(1, RunStatus.FAILED)]


async def test_what_could_not_be_attempted_is_a_system_failure(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    assert await worker.give_up(lease) == [Completed(run_id=lease.run_id, status=RunStatus.SYSTEM_FAILURE)]


async def test_a_retry_waits_for_its_time_and_counts(stage: Stage, worker: Worker, clock: Clock) -> None:
    lease = await stage.leased(worker)
    assert await worker.fail(lease, retry_in=SOON) == [Completed(run_id=lease.run_id, status=RunStatus.QUEUED)]
    run = await stage.run(lease.run_id)
    assert run.due_at is not None
    assert [attempt.number for attempt in run.attempts] == [1]
    assert await worker.lease() == []
    clock.advance(timedelta(seconds=31))
    await stage.tick()
    again = await worker.lease_one()
    assert (again.run_id, again.attempt, again.is_resumed) == (lease.run_id, 2, False)
    assert again.fence != lease.fence
    first, second = (await stage.run(lease.run_id)).attempts
    assert (first.number, first.status, first.error) == (1, RunStatus.FAILED, BOOM)
    assert first.started_at is not None
    assert (second.number, second.status, second.error) == (2, RunStatus.DEQUEUED, None)
    assert second.started_at is not None
    assert second.finished_at is None
    await worker.succeed(again)
    last = (await stage.run(lease.run_id)).attempts[-1]
    assert (last.status, last.started_at) == (RunStatus.COMPLETED, second.started_at)


async def test_a_retry_can_have_a_date(stage: Stage, worker: Worker) -> None:
    moment = datetime.now(UTC) + timedelta(hours=1)
    lease = await stage.leased(worker)
    await worker.fail(lease, retry_in=moment)
    assert (await stage.run(lease.run_id)).due_at == moment


async def test_a_retry_at_once_is_ready_after_the_next_tick(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.fail(lease, retry_in=timedelta(0))
    await stage.a_moment_passes()
    assert (await worker.lease_one()).attempt == 2


async def test_the_engine_refuses_a_retry_beyond_the_limit(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    for number in (1, 2):
        assert lease.attempt == number
        await worker.fail(lease, retry_in=timedelta(0))
        await stage.a_moment_passes()
        lease = await worker.lease_one()
    assert await worker.fail(lease, retry_in=timedelta(0)) == [Completed(run_id=lease.run_id, status=RunStatus.FAILED)]
    run = await stage.run(lease.run_id)
    assert (run.attempt, [attempt.number for attempt in run.attempts]) == (3, [1, 2, 3])


async def test_a_run_with_one_attempt_is_not_retried(stage: Stage) -> None:
    worker = await stage.worker(task("work", max_attempts=1))
    lease = await stage.leased(worker)
    assert await worker.fail(lease, retry_in=SOON) == [Completed(run_id=lease.run_id, status=RunStatus.FAILED)]


async def test_a_timed_out_run_is_over_while_its_code_still_has_its_slot(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    assert await worker.time_out(lease) == [Completed(run_id=lease.run_id, status=RunStatus.TIMED_OUT)]
    assert await stage.count("endings") == 1
    assert (await worker.renew(lease)).cancelled == (lease.run_id,)
    await stage.engine.end_cancelled([holder(lease)])
    await stage.engine.end_cancelled([holder(lease)])
    assert await stage.count("endings") == 0
    assert (await worker.renew(lease)).lost == (lease.run_id,)


@pytest.mark.parametrize("ending", ["succeed", "fail", "time_out", "give_up"])
async def test_a_stale_outcome_changes_nothing(stage: Stage, worker: Worker, ending: str) -> None:
    stale = await stage.leased(worker)
    await worker.hand_back(stale)
    current = await worker.lease_one()
    assert await getattr(worker, ending)(stale) == [Stale(run_id=stale.run_id)]
    assert await stage.status(current.run_id) is RunStatus.DEQUEUED
    assert await stage.count("endings") == 0
    await worker.succeed(current)


@pytest.mark.parametrize("ending", ["succeed", "fail", "time_out", "give_up"])
async def test_a_run_ends_once(stage: Stage, worker: Worker, ending: str) -> None:
    lease = await stage.leased(worker)
    await worker.succeed(lease)
    assert await getattr(worker, ending)(lease) == [Stale(run_id=lease.run_id)]
    assert await stage.status(lease.run_id) is RunStatus.COMPLETED


async def test_a_suspended_run_cannot_be_completed(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.sleep(lease)
    assert await worker.succeed(lease) == [Stale(run_id=lease.run_id)]
    assert await stage.status(lease.run_id) is RunStatus.WAITING


async def test_outcomes_of_many_runs_are_answered_each_in_its_place(stage: Stage, worker: Worker) -> None:
    for _ in range(4):
        await stage.trigger()
    a, b, c, d = await worker.lease()
    await worker.hand_back(c)
    answers = await worker.settle(
        Succeeded(holder=holder(d), output="4"),
        Succeeded(holder=holder(c), output="3"),
        Failed(holder=holder(a), error=BOOM, retry_in=SOON),
        TimedOut(holder=holder(b), error=BOOM),
    )
    assert answers == [
        Completed(run_id=d.run_id, status=RunStatus.COMPLETED),
        Stale(run_id=c.run_id),
        Completed(run_id=a.run_id, status=RunStatus.QUEUED),
        Completed(run_id=b.run_id, status=RunStatus.TIMED_OUT),
    ]


async def test_nothing_to_complete_is_no_error(stage: Stage, worker: Worker) -> None:
    assert await worker.settle() == []


async def test_a_retry_forgets_what_the_failed_attempt_waited_for(stage: Stage, worker: Worker, clock: Clock) -> None:
    """Its child goes on; its end wakes nobody."""
    lease = await stage.leased(worker)
    answer = await worker.call(lease, "0")
    (child,) = await worker.lease()
    await worker.sleep(lease, "1", seconds=1)
    clock.advance(timedelta(seconds=2))
    await stage.tick()
    resumed = await worker.lease_one()
    assert child.run_id == answer.triggered.run_id
    await worker.fail(resumed, retry_in=timedelta(0))
    await stage.a_moment_passes()
    again = await worker.lease_one()
    assert await stage.count("waits") == 0
    await worker.succeed(child)
    assert (again.attempt, again.results) == (2, ())
    assert await journal_of(stage.engine, holder(again)) == []
