"""Cancelling runs, with all that came of them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from detent.protocol import ids
from detent.protocol.fence import Stale
from detent.protocol.ids import RunId
from detent.protocol.run_error import ErrorCode
from detent.protocol.status import RunStatus
from detent.protocol.waits import Suspended
from tests.database import Clock
from tests.engine.stage import SOON, Stage, Worker, child, chunk, holder, origin

CANCELED = RunStatus.CANCELED


async def delayed(stage: Stage, worker: Worker) -> RunId:
    return await stage.trigger(delay=SOON)


async def queued(stage: Stage, worker: Worker) -> RunId:
    return await stage.trigger()


async def pending_version(stage: Stage, worker: Worker) -> RunId:
    return await stage.trigger("unknown")


async def retried(stage: Stage, worker: Worker) -> RunId:
    lease = await stage.leased(worker)
    await worker.fail(lease, retry_in=SOON)
    return lease.run_id


async def waiting(stage: Stage, worker: Worker) -> RunId:
    lease = await stage.leased(worker)
    await worker.sleep(lease)
    return lease.run_id


async def woken(stage: Stage, worker: Worker) -> RunId:
    lease = await stage.leased(worker)
    await worker.call(lease)
    await worker.succeed(await worker.lease_one())
    assert await stage.status(lease.run_id) is RunStatus.QUEUED
    return lease.run_id


@pytest.mark.parametrize("state", [delayed, queued, pending_version, retried, waiting, woken])
async def test_a_run_that_does_not_execute_is_over_at_once(
    stage: Stage, worker: Worker, clock: Clock, state: object
) -> None:
    run_id = await state(stage, worker)
    assert await stage.engine.cancel_runs([run_id], "no longer wanted") == [True]
    run = await stage.run(run_id)
    assert run.status is CANCELED
    assert run.error is not None
    assert (run.error.code, run.error.message) == (ErrorCode.CANCELLED, "no longer wanted")
    clock.advance(timedelta(days=1))
    await stage.tick()
    assert await worker.lease() == []
    assert await stage.count("endings") == 0


@pytest.mark.parametrize("is_started", [False, True])
async def test_an_executing_run_is_over_at_once_and_its_worker_told(
    stage: Stage, worker: Worker, is_started: bool
) -> None:
    lease = await stage.leased(worker)
    if is_started:
        await worker.start(lease)
    assert await stage.engine.cancel_runs([lease.run_id], "stop") == [True]
    assert await stage.status(lease.run_id) is CANCELED
    renewed = await worker.renew(lease)
    assert (renewed.cancelled, renewed.lost) == ((lease.run_id,), ())
    assert await worker.succeed(lease) == [Stale(run_id=lease.run_id)]
    await stage.engine.end_cancelled([holder(lease)])
    assert await stage.count("endings") == 0


async def test_a_worker_hears_that_a_run_it_keeps_in_memory_is_gone(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.sleep(lease)
    await stage.engine.cancel_runs([lease.run_id], "stop")
    renewed = await worker.renew(lease)
    assert (renewed.cancelled, renewed.lost) == ((), (lease.run_id,))


async def test_cancelling_twice_says_that_it_was_over(stage: Stage, worker: Worker) -> None:
    run_id = await stage.trigger()
    assert await stage.engine.cancel_runs([run_id], "first") == [True]
    assert await stage.engine.cancel_runs([run_id], "second") == [False]
    assert (await stage.run(run_id)).error.message == "first"


async def test_a_finished_run_stays_as_it_ended(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.succeed(lease)
    assert await stage.engine.cancel_runs([lease.run_id], "late") == [False]
    assert await stage.status(lease.run_id) is RunStatus.COMPLETED


async def test_unknown_runs_are_answered_with_none_beside_the_known(stage: Stage) -> None:
    run_id = await stage.trigger()
    assert await stage.engine.cancel_runs([ids.new_run_id(), run_id, run_id], "x") == [None, True, True]
    assert await stage.engine.cancel_runs([], "x") == []


async def test_the_whole_family_goes_whatever_each_is_doing(stage: Stage, worker: Worker) -> None:
    """root waits for an executing child and a batch of a delayed and a queued item; a grandchild waits for an hour."""
    root = await stage.leased(worker)
    answer = await worker.call(root, "0", wait=False)
    middle = await worker.lease_one()
    await worker.call(middle, "0", wait=False)
    grandchild = await worker.lease_one()
    await worker.sleep(grandchild)
    batch_id = ids.new_batch_id()
    await stage.engine.trigger_batch(chunk(batch_id, [0], origin=origin(root, "1"), delay=SOON))
    await stage.engine.trigger_batch(chunk(batch_id, [1], origin=origin(root, "1"), total=2))
    family = [root.run_id, answer.triggered.run_id, grandchild.run_id, *(ids.item_run_id(batch_id, i) for i in (0, 1))]
    outsider = await stage.trigger()
    assert await stage.engine.cancel_runs([root.run_id], "all") == [True]
    assert await stage.statuses(*family) == [CANCELED] * 5
    assert await stage.status(outsider) is RunStatus.QUEUED
    assert [await stage.count(table) for table in ("journal", "waits", "waitpoints", "batch_items")] == [0] * 4


async def test_cancelling_a_child_wakes_its_parent_with_the_reason(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    answer = await worker.call(parent)
    await stage.engine.cancel_runs([answer.triggered.run_id], "not that one")
    (result,) = (await worker.lease_one()).results
    assert result.child.status is CANCELED
    assert result.child.error.message == "not that one"


async def test_a_parent_that_fails_cancels_none(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    answer = await worker.call(parent, wait=False)
    await worker.fail(parent)
    assert await stage.status(answer.triggered.run_id) is RunStatus.QUEUED


async def test_a_run_that_shares_a_key_is_no_child(stage: Stage, worker: Worker) -> None:
    from tests.engine.test_idempotency import keyed

    shared = keyed()
    await stage.engine.trigger([shared])
    first = await worker.lease_one()
    parent = await stage.leased(worker)
    await worker.call(parent, idempotency=shared.idempotency)
    await stage.engine.cancel_runs([parent.run_id], "parent only")
    assert await stage.status(first.run_id) is RunStatus.DEQUEUED
    await worker.succeed(first)


async def test_a_cancelled_parent_can_trigger_no_more(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    await stage.engine.cancel_runs([parent.run_id], "stop")
    assert await worker.call(parent) == Stale(run_id=parent.run_id)
    assert await worker.sleep(parent) == Stale(run_id=parent.run_id)
    batch = chunk(ids.new_batch_id(), [0], origin=origin(parent, "2"))
    assert await stage.engine.trigger_batch(batch) == Stale(run_id=parent.run_id)
    assert [await stage.count(table) for table in ("runs", "journal", "batches")] == [0, 0, 0]


async def test_many_are_cancelled_in_one_call_parents_with_their_children(stage: Stage, worker: Worker) -> None:
    for _ in range(10):
        await stage.trigger()
    parents = await worker.lease()
    answers = await stage.engine.trigger_children([child(parent, "0") for parent in parents])
    assert all(answer.wait == Suspended() for answer in answers)
    everybody = [run_id for p, a in zip(parents, answers, strict=True) for run_id in (p.run_id, a.triggered.run_id)]
    assert await stage.engine.cancel_runs(everybody, "all") == [True] * 20
    assert await stage.count("runs") == 0
