"""`on_lost="fail"`: what has begun, or may have, never begins again when its worker is lost."""

from __future__ import annotations

import pytest

from detent.protocol.execution import Isolation, OnLost
from detent.protocol.run_error import ErrorCode
from detent.protocol.status import RunStatus
from tests.engine.stage import BOOM, SOON, Stage, Worker, task

ONCE = task("once", on_lost=OnLost.FAIL)


@pytest.fixture
async def worker(stage: Stage) -> Worker:
    """A worker with tasks whose runs begin at most once, and an ordinary one."""
    return await stage.worker(ONCE, task("alone", on_lost=OnLost.FAIL, isolation=Isolation.PROCESS), "work")


@pytest.mark.parametrize("is_shown", [True, False])
async def test_a_run_that_began_ends_crashed_and_is_not_retried(stage: Stage, worker: Worker, is_shown: bool) -> None:
    lease = await stage.leased(worker, "once")
    if is_shown:
        await worker.start(lease)
    await worker.end(error=BOOM)
    run = await stage.run(lease.run_id)
    assert (run.status, run.attempt) == (RunStatus.CRASHED, 1)
    assert run.error is not None
    assert run.error.code == ErrorCode.WORKER_LOST
    assert run.error.message == (
        'the worker was lost while it executed the run (boom); on_lost="fail" keeps it from running again'
    )


async def test_a_run_of_a_worker_that_is_found_dead_ends_crashed(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker, "once")
    await worker.end(is_lost=True)
    run = await stage.run(lease.run_id)
    assert run.status is RunStatus.CRASHED
    assert run.error is not None
    assert run.error.message.startswith("the worker was lost while it executed the run; on_lost")


async def test_its_neighbours_run_again(stage: Stage, worker: Worker) -> None:
    once, other = await stage.leased(worker, "once"), await stage.leased(worker)
    await worker.end(suspects=(other.run_id,), error=BOOM)
    assert await stage.statuses(once.run_id, other.run_id) == [RunStatus.CRASHED, RunStatus.QUEUED]


@pytest.mark.parametrize("task_id", ["once", "alone"])
async def test_a_suspect_ends_crashed_instead_of_starting_alone(stage: Stage, worker: Worker, task_id: str) -> None:
    lease = await stage.leased(worker, task_id)
    await worker.end(suspects=(lease.run_id,), error=BOOM)
    run = await stage.run(lease.run_id)
    assert run.error is not None
    assert (run.status, run.attempt, run.error.code) == (RunStatus.CRASHED, 1, ErrorCode.WORKER_LOST)


async def test_a_run_that_was_leased_and_never_begun_starts_elsewhere(stage: Stage, worker: Worker) -> None:
    begun, unbegun = await stage.leased(worker, "once"), await stage.leased(worker, "once")
    await worker.end(unanswered=(5, unbegun.fence), error=BOOM)
    assert await stage.statuses(begun.run_id, unbegun.run_id) == [RunStatus.CRASHED, RunStatus.QUEUED]
    other = await stage.session(worker.version)
    assert (await other.lease_one()).attempt == 1


async def test_a_run_of_a_lost_lease_reply_starts_elsewhere(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker, "once")
    await stage.query("update detent.runs set leased_at = clock_timestamp() - interval '1 minute'")
    await worker.renew()
    assert await stage.status(lease.run_id) is RunStatus.QUEUED


async def test_a_run_that_waits_goes_on_by_replay(stage: Stage, worker: Worker) -> None:
    waiting, woken = await stage.leased(worker, "once"), await stage.leased(worker, "once")
    await worker.sleep(waiting)
    await worker.call(woken)
    await worker.succeed(await worker.lease_one())
    await worker.end(error=BOOM)
    assert await stage.statuses(waiting.run_id, woken.run_id) == [RunStatus.WAITING, RunStatus.QUEUED]
    other = await stage.session(worker.version)
    again = await other.lease_one()
    assert (again.run_id, again.has_journal) == (woken.run_id, True)


@pytest.mark.parametrize(("has_begun", "status"), [(True, RunStatus.CRASHED), (False, RunStatus.QUEUED)])
async def test_a_run_that_is_handed_back_ends_crashed_if_it_had_begun(
    stage: Stage, worker: Worker, has_begun: bool, status: RunStatus
) -> None:
    lease, other = await stage.leased(worker, "once"), await stage.leased(worker)
    await worker.hand_back(lease, other, has_begun=has_begun)
    await worker.hand_back(lease, other, has_begun=has_begun)
    assert await stage.statuses(lease.run_id, other.run_id) == [status, RunStatus.QUEUED]


async def test_a_run_that_is_handed_back_while_it_waits_goes_on(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker, "once")
    await worker.sleep(lease)
    await worker.hand_back(lease)
    assert await stage.status(lease.run_id) is RunStatus.WAITING


async def test_a_stale_hand_back_of_a_run_that_began_does_nothing(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker, "once")
    await worker.hand_back(lease, has_begun=False)
    again = await worker.lease_one()
    await worker.hand_back(lease)
    assert await stage.status(again.run_id) is RunStatus.DEQUEUED


@pytest.mark.parametrize("way", ["death", "hand back"])
async def test_its_end_wakes_the_parent(stage: Stage, worker: Worker, way: str) -> None:
    parent = await stage.leased(worker)
    await worker.call(parent, task_id="once")
    doomed = await stage.session(worker.version)
    child = await doomed.lease_one()
    await (doomed.end(error=BOOM) if way == "death" else doomed.hand_back(child))
    (result,) = (await worker.lease_one()).results
    assert result.child is not None
    assert result.child.status is RunStatus.CRASHED


async def test_an_attempt_that_fails_by_itself_is_retried(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker, "once")
    await worker.fail(lease, retry_in=SOON)
    assert await stage.status(lease.run_id) is RunStatus.QUEUED


async def test_the_version_that_executes_decides(stage: Stage) -> None:
    before, after = await stage.worker(task("once")), await stage.worker(ONCE)
    restarted, failed = await stage.leased(before, "once"), await stage.leased(after, "once")
    await before.end()
    await after.end()
    assert await stage.statuses(restarted.run_id, failed.run_id) == [RunStatus.QUEUED, RunStatus.CRASHED]


async def test_a_version_that_is_registered_anew_changes_its_mind(stage: Stage) -> None:
    worker = await stage.worker(task("once"), version="v1")
    lease = await stage.leased(worker, "once")
    await stage.worker(ONCE, version="v1")
    await worker.end()
    assert await stage.status(lease.run_id) is RunStatus.CRASHED
