"""Runs that are over are leased once more for their final hooks alone, where no live attempt has called them."""

from __future__ import annotations

import secrets
from datetime import timedelta

import pytest

from detent.protocol.attempts import Failed, Succeeded
from detent.protocol.final_hooks import FinalEnd, HooksLease, HooksRequest
from detent.protocol.flow import Pause
from detent.protocol.leases import Lease
from detent.protocol.logs import LogLine
from detent.protocol.status import RunStatus
from tests.engine.stage import BOOM, ENVIRONMENT, SOON, Stage, Worker, holder, queue_ref, task

HOOKED = task("hooked", final_hooks=(FinalEnd.FAILURE, FinalEnd.CANCEL))


@pytest.fixture
async def worker(stage: Stage) -> Worker:
    """A worker with a task that has final hooks, and with one that has none."""
    return await stage.worker(HOOKED, "work")


async def lease_hooks(worker: Worker, most: int = 10) -> list[HooksLease]:
    request = HooksRequest(session_id=worker.session_id, fence=secrets.randbits(62), most=most)
    return await worker.engine.lease_hooks(request)


async def one_lease(worker: Worker) -> HooksLease:
    (lease,) = await lease_hooks(worker)
    return lease


async def succeed_with_hooks(worker: Worker, lease: Lease) -> None:
    await worker.settle(Succeeded(holder=holder(lease), output="5", has_hooks=True))


async def test_a_cancelled_run_that_nobody_executes_is_leased_for_its_hooks(stage: Stage, worker: Worker) -> None:
    run_id = await stage.trigger("hooked", payload='{"id": 1}', tags=("user:7",))
    await stage.engine.cancel_runs([run_id], "no more")
    lease = await one_lease(worker)
    assert (lease.lease.run_id, lease.status, lease.number) == (run_id, RunStatus.CANCELED, 1)
    assert (lease.lease.payload, lease.lease.tags) == ('{"id": 1}', ("user:7",))
    assert lease.error is not None
    assert lease.error.message == "no more"
    assert await lease_hooks(worker) == []


async def test_hooks_that_were_called_are_over(stage: Stage, worker: Worker) -> None:
    run_id = await stage.trigger("hooked")
    await stage.engine.cancel_runs([run_id], "no more")
    lease = await one_lease(worker)
    await stage.engine.end_hooks([holder(lease.lease)])
    assert await stage.count("final_hooks") == 0


async def test_runs_of_a_task_without_final_hooks_leave_none(stage: Stage, worker: Worker) -> None:
    runs = await stage.trigger_many(3)
    await stage.engine.cancel_runs(runs, "no more")
    assert await stage.count("final_hooks") == 0


async def test_a_task_with_hooks_for_failures_alone_leaves_none_when_it_is_cancelled(stage: Stage) -> None:
    worker = await stage.worker(task("hooked", final_hooks=(FinalEnd.FAILURE,)))
    await stage.engine.cancel_runs([await stage.trigger("hooked")], "no more")
    assert await lease_hooks(worker) == []


@pytest.mark.parametrize("end", ["time_out", "give_up"])
async def test_an_end_that_no_attempt_saw_is_leased_for_its_hooks(stage: Stage, worker: Worker, end: str) -> None:
    lease = await stage.leased(worker, "hooked")
    await getattr(worker, end)(lease)
    await stage.engine.end_cancelled([holder(lease)])
    assert (await one_lease(worker)).status.is_failed


async def test_an_expired_run_is_leased_for_its_hooks(stage: Stage, worker: Worker) -> None:
    run_id = await stage.trigger("hooked", ttl=1.0)
    await stage.query("update testing.clock set shift = shift + interval '2 seconds'")
    await stage.tick()
    lease = await one_lease(worker)
    assert (lease.lease.run_id, lease.status) == (run_id, RunStatus.EXPIRED)


async def test_a_crashed_run_is_leased_for_its_hooks_by_another_worker(stage: Stage) -> None:
    worker = await stage.worker(HOOKED)
    lease = await stage.leased(worker, "hooked", max_attempts=1)
    await stage.query("update detent.runs set is_solo = true")
    await worker.end(suspects=(lease.run_id,), error=BOOM)
    other = await stage.session(worker.version)
    assert (await one_lease(other)).status is RunStatus.CRASHED


async def test_the_worker_that_records_an_end_holds_its_hooks(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker, "hooked")
    await succeed_with_hooks(worker, lease)
    assert await lease_hooks(worker) == []
    renewed = await worker.renew(lease)
    assert renewed.lost == ()


async def test_hooks_of_a_worker_that_died_among_them_are_leased_and_the_body_is_not(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker, "hooked")
    await succeed_with_hooks(worker, lease)
    await worker.end(suspects=(lease.run_id,), error=BOOM)
    other = await stage.session(worker.version)
    again = await one_lease(other)
    assert (again.lease.run_id, again.status, again.output) == (lease.run_id, RunStatus.COMPLETED, "5")
    assert await other.lease() == []


async def test_a_worker_that_executes_a_cancelled_run_holds_its_hooks_until_its_code_has_ended(
    stage: Stage, worker: Worker
) -> None:
    lease = await stage.leased(worker, "hooked")
    await stage.engine.cancel_runs([lease.run_id], "no more")
    assert await lease_hooks(worker) == []
    assert (await worker.renew(lease)).cancelled == (lease.run_id,)
    await stage.engine.end_cancelled([holder(lease)])
    assert (await one_lease(worker)).lease.run_id == lease.run_id


async def test_an_attempt_that_is_followed_by_another_leaves_no_hooks(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker, "hooked")
    await worker.settle(Failed(holder=holder(lease), error=BOOM, retry_in=SOON, has_hooks=True))
    assert await stage.count("final_hooks") == 0


async def test_hooks_are_leased_three_times_at_most(stage: Stage, worker: Worker) -> None:
    await stage.engine.cancel_runs([await stage.trigger("hooked")], "no more")
    for number in (1, 2, 3):
        taker = await stage.session(worker.version)
        assert (await one_lease(taker)).number == number
        await taker.end(is_lost=True)
    assert await stage.count("final_hooks") == 0


async def test_hooks_of_a_lost_reply_are_let_go_at_a_renewal(stage: Stage, worker: Worker) -> None:
    await stage.engine.cancel_runs([await stage.trigger("hooked")], "no more")
    await lease_hooks(worker)
    await worker.renew()
    await worker.renew()
    assert (await one_lease(worker)).number == 2


async def test_a_lease_for_hooks_takes_no_slot_and_passes_pauses(stage: Stage, worker: Worker) -> None:
    run_id = await stage.trigger("hooked")
    for ref in (queue_ref("task/hooked"), ENVIRONMENT):
        await stage.change(Pause(ref=ref))
    await stage.engine.cancel_runs([run_id], "no more")
    assert await worker.lease() == []
    assert len(await lease_hooks(worker)) == 1


async def test_a_worker_without_the_task_is_given_no_hooks_of_it(stage: Stage, worker: Worker) -> None:
    stranger = await stage.worker("other")
    await stage.engine.cancel_runs([await stage.trigger("hooked")], "no more")
    assert await lease_hooks(stranger) == []


async def test_lines_of_hooks_are_kept_with_the_run(stage: Stage, worker: Worker) -> None:
    run_id = await stage.trigger("hooked")
    await stage.engine.cancel_runs([run_id], "no more")
    lease = await one_lease(worker)
    await stage.engine.append_logs([line_of(lease)])
    assert [line.message for line in await stage.engine.read_logs(run_id)] == ["told them"]


def line_of(lease: HooksLease) -> LogLine:
    at = lease.lease.created_at + timedelta(seconds=1)
    return LogLine(
        holder=holder(lease.lease), attempt=1, place="hooks/1/0", number=0, at=at, level="info", message="told them", fields=None
    )
