"""Runners: they renew, they end, they die, and what becomes of their runs."""

from __future__ import annotations

from datetime import timedelta

import pytest

from detent.protocol import ids
from detent.protocol.execution import Isolation
from detent.protocol.fence import Holder, Stale
from detent.protocol.run_error import ErrorCode, RunError
from detent.protocol.sessions import Renewal, SessionBeat, SessionEnd, SessionEnded, SessionOpening
from detent.protocol.status import RunStatus
from tests.engine.stage import BOOM, PLENTY, Stage, Worker, holder, task

LONG_AGO = "update detent.runs set leased_at = clock_timestamp() - interval '1 minute'"
"""Leases are old enough to be judged by what a runner says it holds."""


# ---- renewal


async def test_a_renewal_of_what_is_held_changes_nothing(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await stage.query(LONG_AGO)
    renewed = await worker.renew(lease)
    assert (renewed.is_alive, renewed.lost, renewed.cancelled, renewed.solo_waiting) == (True, (), (), 0)
    assert await stage.status(lease.run_id) is RunStatus.DEQUEUED
    assert await stage.engine.list_sessions() == [SessionBeat(session_id=worker.session_id, beat=1)]


async def test_runs_of_a_lost_reply_are_handed_back(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await stage.query(LONG_AGO)
    await worker.renew()
    assert await stage.status(lease.run_id) is RunStatus.QUEUED
    again = await worker.lease_one()
    assert (again.attempt, (await stage.run(again.run_id)).losses) == (1, 0)
    assert await worker.succeed(lease) == [Stale(run_id=lease.run_id)]
    await worker.succeed(again)


async def test_runs_of_a_lease_without_an_answer_yet_are_left_alone(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await stage.query(LONG_AGO)
    await worker.renew(in_flight=(lease.fence,))
    assert await stage.status(lease.run_id) is RunStatus.DEQUEUED


async def test_a_renewal_that_was_under_way_before_a_lease_does_not_take_it_back(stage: Stage, worker: Worker) -> None:
    """It names neither the run nor the fence: it was composed, then held up, and the runner leased meanwhile."""
    lease = await stage.leased(worker)
    renewed = await worker.renew()
    assert (renewed.is_alive, renewed.lost) == (True, ())
    assert await stage.status(lease.run_id) is RunStatus.DEQUEUED
    await worker.succeed(lease)


async def test_a_suspended_run_is_kept_for_the_runner_that_holds_it(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.sleep(lease)
    await stage.query(LONG_AGO)
    assert (await worker.renew(lease)).lost == ()
    assert await stage.query("select session_id is not null from detent.runs") == [(True,)]


async def test_a_suspended_run_that_its_runner_forgot_waits_on_without_it(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    answer = await worker.call(lease)
    await stage.query(LONG_AGO)
    await worker.renew()
    assert await stage.status(lease.run_id) is RunStatus.WAITING
    child = await worker.lease_one()
    assert child.run_id == answer.triggered.run_id
    await worker.succeed(child)
    resumed = await worker.lease_one()
    assert (resumed.is_resumed, resumed.has_journal, resumed.payload) == (False, True, "{}")


async def test_a_woken_run_that_its_runner_forgot_is_anyones_at_once(stage: Stage, worker: Worker) -> None:
    other = await stage.session(worker.version)
    lease = await stage.leased(worker)
    await worker.call(lease)
    await worker.succeed(await worker.lease_one())
    await stage.query(LONG_AGO)
    await worker.renew()
    taken = await other.lease_one()
    assert (taken.run_id, taken.is_resumed) == (lease.run_id, False)


async def test_runs_the_database_gave_to_others_are_lost(stage: Stage, worker: Worker) -> None:
    mine, given, finished = [await stage.leased(worker) for _ in range(3)]
    await worker.hand_back(given)
    await worker.succeed(finished)
    other = await stage.session(worker.version)
    taken = await other.lease_one()
    renewed = await worker.renew(mine, given, finished)
    assert set(renewed.lost) == {given.run_id, finished.run_id}
    assert (await other.renew(taken)).lost == ()


async def test_a_run_held_under_an_older_fence_is_lost(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.hand_back(lease)
    again = await worker.lease_one()
    assert (await worker.renew(lease, again)).lost == (lease.run_id,)


async def test_a_session_that_was_ended_by_others_is_not_alive(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.end(is_lost=True)
    renewed = await worker.renew(lease)
    assert not renewed.is_alive
    assert await stage.status(lease.run_id) is RunStatus.QUEUED


async def test_an_unknown_session_is_not_alive(stage: Stage, worker: Worker) -> None:
    renewals = [Renewal(session_id=session, held=()) for session in (ids.new_session_id(), worker.session_id)]
    assert [renewed.is_alive for renewed in await stage.engine.renew_sessions(renewals)] == [False, True]


async def test_renewing_nothing_is_no_error(stage: Stage) -> None:
    assert await stage.engine.renew_sessions([]) == []


async def test_a_renewal_tells_how_many_runs_must_start_alone(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.end(suspects=(lease.run_id,))
    other = await stage.session(worker.version)
    assert (await other.renew()).solo_waiting == 1
    await other.lease()
    assert (await other.renew()).solo_waiting == 0


# ---- opening


async def test_opening_twice_is_opening_once(stage: Stage, worker: Worker) -> None:
    opening = SessionOpening(session_id=worker.session_id, version=worker.version, worker="host:1")
    await stage.engine.open_session(opening)
    assert len(await stage.engine.list_sessions()) == 1


async def test_a_session_that_ended_is_not_listed_and_not_opened_again(stage: Stage, worker: Worker) -> None:
    await worker.end()
    opening = SessionOpening(session_id=worker.session_id, version=worker.version, worker="host:1")
    await stage.engine.open_session(opening)
    assert await stage.engine.list_sessions() == []


# ---- ending


async def test_the_runs_of_a_session_that_ends_are_handed_back(stage: Stage, worker: Worker) -> None:
    executing, leased, waiting = [await stage.leased(worker) for _ in range(3)]
    await worker.start(executing)
    await worker.sleep(waiting)
    assert await worker.end() == 2
    assert await worker.end() == 0
    assert await stage.statuses(executing.run_id, leased.run_id, waiting.run_id) == [
        RunStatus.QUEUED,
        RunStatus.QUEUED,
        RunStatus.WAITING,
    ]
    other = await stage.session(worker.version)
    leases = await other.lease(**{"async": 10})
    assert [(lease.run_id, lease.attempt) for lease in leases] == [(executing.run_id, 1), (leased.run_id, 1)]
    assert (await stage.run(executing.run_id)).losses == 0


async def test_a_session_ends_only_at_the_heartbeat_that_was_seen(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    ((beat,),) = [(each.beat,) for each in await stage.engine.list_sessions()]
    await worker.renew(lease)
    assert await worker.end(is_lost=True, beat=beat) == 0
    assert (await worker.renew(lease)).is_alive
    assert await worker.end(is_lost=True, beat=beat + 2) == 1


async def test_the_end_of_a_session_tells_which_runs_must_start_alone_and_when(stage: Stage, worker: Worker) -> None:
    first, second, neighbour = [await stage.leased(worker) for _ in range(3)]
    ended = await worker.end_telling(suspects=(first.run_id, second.run_id), error=BOOM)
    assert (ended.returned, ended.alone) == (3, (0, 0))
    solo = await stage.session(worker.version)
    held = await solo.lease(process=2)
    assert {lease.run_id for lease in held} == {first.run_id, second.run_id}
    ended = await solo.end_telling(suspects=(first.run_id,), error=BOOM)
    assert ended.returned == 1
    now, retried = sorted(ended.alone)
    assert now == 0
    assert 0.5 < retried < 2.5
    assert await stage.status(neighbour.run_id) is RunStatus.QUEUED


async def test_a_suspect_that_fails_alone_is_tried_again_among_others(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.end(suspects=(lease.run_id,), error=BOOM)
    solo = await stage.session(worker.version)
    await solo.fail(await solo.lease_one(), retry_in=timedelta(0))
    await stage.a_moment_passes()
    again = await solo.lease_one()
    assert (again.run_id, again.attempt, again.isolation) == (lease.run_id, 2, Isolation.ASYNC)


async def test_a_suspect_that_crashes_alone_is_tried_again_alone(stage: Stage, worker: Worker) -> None:
    solo, held = await alone(stage, worker)
    await solo.end(suspects=(held.run_id,), error=BOOM)
    await stage.query("update testing.clock set shift = shift + interval '1 minute'")
    await stage.tick()
    other = await stage.session(worker.version)
    again = await other.lease_one()
    assert (again.attempt, again.isolation) == (2, Isolation.PROCESS)


async def test_only_suspects_start_alone(stage: Stage, worker: Worker) -> None:
    suspect, neighbour = [await stage.leased(worker) for _ in range(2)]
    await worker.end(suspects=(suspect.run_id,), error=BOOM)
    other = await stage.session(worker.version)
    kinds = {lease.run_id: lease.isolation for lease in await other.lease()}
    assert kinds == {suspect.run_id: Isolation.PROCESS, neighbour.run_id: Isolation.ASYNC}
    assert (await stage.run(suspect.run_id)).losses == 1


async def alone(stage: Stage, worker: Worker) -> tuple[Worker, Holder]:
    """A run that was suspected, started alone."""
    lease = await stage.leased(worker)
    await worker.end(suspects=(lease.run_id,))
    solo = await stage.session(worker.version)
    return solo, holder(await solo.lease_one())


async def test_a_suspect_that_kills_a_process_of_its_own_has_crashed_and_is_retried_by_its_policy(
    stage: Stage, worker: Worker
) -> None:
    solo, held = await alone(stage, worker)
    await solo.end(suspects=(held.run_id,), error=BOOM)
    run = await stage.run(held.run_id)
    assert (run.status, run.attempt) == (RunStatus.QUEUED, 2)
    assert run.due_at is not None
    assert timedelta(seconds=0.5) < run.due_at - run.attempts[0].finished_at < timedelta(seconds=2.5)
    assert run.attempts[0].error == BOOM


@pytest.mark.parametrize("error", [BOOM, None])
async def test_a_suspect_without_attempts_left_ends_crashed(stage: Stage, error: RunError | None) -> None:
    worker = await stage.worker(task("work", max_attempts=1))
    solo, held = await alone(stage, worker)
    await solo.end(suspects=(held.run_id,), error=error)
    run = await stage.run(held.run_id)
    assert run.status is RunStatus.CRASHED
    assert run.error is not None
    assert run.error.name == (error.name if error else ErrorCode.WORKER_LOST)


async def test_the_attempt_after_a_crash_starts_alone_too(stage: Stage, worker: Worker) -> None:
    solo, held = await alone(stage, worker)
    await solo.end(suspects=(held.run_id,), error=BOOM)
    await stage.query("update detent.runs set due_at = clock_timestamp() - interval '1 second'")
    await stage.tick()
    lease = await (await stage.session(worker.version)).lease_one()
    assert (lease.isolation, lease.attempt) == (Isolation.PROCESS, 2)


async def test_a_run_alone_whose_session_ends_for_another_reason_is_handed_back(stage: Stage, worker: Worker) -> None:
    solo, held = await alone(stage, worker)
    await solo.end()
    run = await stage.run(held.run_id)
    assert (run.status, run.attempt) == (RunStatus.QUEUED, 1)


@pytest.mark.parametrize("error", [BOOM, None])
async def test_a_run_lost_five_times_in_a_row_has_crashed(stage: Stage, worker: Worker, error: RunError | None) -> None:
    run_id = await stage.trigger()
    for losses in range(1, 6):
        session = await stage.session(worker.version)
        await session.lease_one()
        await session.end(is_lost=True, error=error)
        run = await stage.run(run_id)
        assert run.status is (RunStatus.QUEUED if losses < 5 else RunStatus.CRASHED)
        assert run.losses == min(losses, 4)
    assert run.error is not None
    assert run.error.name == (error.name if error else ErrorCode.WORKER_LOST)


@pytest.mark.parametrize("progress", ["journal", "attempt"])
async def test_losses_are_counted_anew_after_progress(stage: Stage, worker: Worker, progress: str) -> None:
    run_id = await stage.trigger()
    for losses in range(7):
        session = await stage.session(worker.version)
        lease = await session.lease_one()
        if losses == 3 and progress == "journal":
            await session.sleep(lease, "0", seconds=0)
        if losses == 3 and progress == "attempt":
            await session.fail(lease, retry_in=timedelta(0))
            await stage.a_moment_passes()
            lease = await session.lease_one()
        await session.end(is_lost=True)
        assert await stage.status(run_id) is RunStatus.QUEUED


async def test_a_loss_while_a_run_waits_does_not_count(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.sleep(lease)
    await worker.end(is_lost=True)
    assert await stage.query("select losses, losses_in_row from detent.runs") == [(0, 0)]


async def test_a_crash_wakes_the_parent(stage: Stage) -> None:
    worker = await stage.worker(task("work", max_attempts=1))
    parent = await stage.leased(worker)
    await worker.call(parent)
    doomed = await stage.session(worker.version)
    child = await doomed.lease_one()
    await doomed.end(suspects=(child.run_id,))
    doomed = await stage.session(worker.version)
    await doomed.lease_one()
    await doomed.end(suspects=(child.run_id,), error=BOOM)
    (result,) = (await worker.lease_one()).results
    assert result.child.status is RunStatus.CRASHED


async def test_code_that_was_still_running_goes_with_its_session(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await stage.engine.cancel_runs([lease.run_id], "stop")
    await worker.end()
    assert await stage.count("endings") == 0


async def test_ending_an_unknown_session_does_nothing(stage: Stage) -> None:
    assert await stage.engine.end_session(SessionEnd(session_id=ids.new_session_id())) == SessionEnded(returned=0)


# ---- handing back


async def test_a_run_handed_back_is_tried_by_another_in_the_same_attempt(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.start(lease)
    await worker.hand_back(lease)
    await worker.hand_back(lease)
    other = await stage.session(worker.version)
    again = await other.lease_one()
    assert (again.run_id, again.attempt) == (lease.run_id, 1)
    assert (await stage.run(lease.run_id)).losses == 0


async def test_handing_back_a_suspended_run_lets_it_wait_on(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.call(lease)
    await worker.hand_back(lease)
    assert await stage.status(lease.run_id) is RunStatus.WAITING
    child = await worker.lease_one()
    await worker.succeed(child)
    assert not (await worker.lease_one()).is_resumed


async def test_handing_back_a_woken_run_gives_up_its_head_start(stage: Stage, worker: Worker) -> None:
    other = await stage.session(worker.version)
    lease = await stage.leased(worker)
    await worker.call(lease)
    await worker.succeed(await worker.lease_one())
    await worker.hand_back(lease)
    assert (await other.lease_one()).run_id == lease.run_id


async def test_a_stale_hand_back_does_nothing(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.hand_back(lease)
    again = await worker.lease_one()
    await worker.hand_back(lease)
    assert await stage.status(again.run_id) is RunStatus.DEQUEUED


async def test_a_drained_worker_leaves_everything_to_the_next(stage: Stage, worker: Worker) -> None:
    leases = [await stage.leased(worker) for _ in range(3)]
    await worker.sleep(leases[0], "0")
    await worker.hand_back(*leases)
    await worker.end()
    other = await stage.session(worker.version)
    assert len(await other.lease(**{kind.value: room for kind, room in PLENTY.items()})) == 2
