"""Many runs at once, and waiting for all of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from detent.engine.backend import connect
from detent.protocol import ids
from detent.protocol.batches import BatchCreated, BatchCreation, ChunkTaken
from detent.protocol.codec import PAYLOAD_LIMIT
from detent.protocol.fence import Holder, Stale
from detent.protocol.idempotency import Idempotency
from detent.protocol.operations import Origin
from detent.protocol.refusal import Refused
from detent.protocol.selection import RunSelection
from detent.protocol.status import BatchStatus, RunStatus
from detent.protocol.triggering import Triggered
from detent.protocol.waits import Pending, Suspended, Suspension, WaitResult
from tests.database import Clock
from tests.engine.stage import BOOM, SOON, Stage, Worker, chunk, holder, journal_of, origin, request
from tests.engine.test_idempotency import KEY

BATCH_KEY = Idempotency(key="b" * 64, user_key="k", scope="global")
TOO_LARGE = f'"{"x" * PAYLOAD_LIMIT}"'
KEYED = {"idempotency": Idempotency(key=KEY, user_key="k", scope="global")}


def is_pending(taken: ChunkTaken | Refused | Stale) -> bool:
    """Whether the batch is sealed and waited for."""
    return isinstance(taken, ChunkTaken) and isinstance(taken.wait, Pending | Suspended)


async def test_a_batch_outside_a_run_makes_its_runs_in_order(stage: Stage, worker: Worker) -> None:
    batch_id = ids.new_batch_id()
    taken = await stage.engine.trigger_batch(chunk(batch_id, range(5), total=5))
    wanted = [ids.item_run_id(batch_id, i) for i in range(5)]
    assert taken == ChunkTaken(
        items=tuple(Triggered(run_id=run_id) for run_id in wanted),
        accepted=5, deduplicated=0, enqueued=5, expected=5, is_sealed=True,
    )  # fmt: skip
    leases = await worker.lease()
    assert [lease.run_id for lease in leases] == wanted
    assert {lease.batch_id for lease in leases} == {batch_id}
    assert {lease.parent_run_id for lease in leases} == {None}


async def test_chunks_of_a_batch_come_in_any_order(stage: Stage, worker: Worker) -> None:
    batch_id = ids.new_batch_id()
    for indexes in ([4, 5], [0, 1], [2, 3]):
        await stage.engine.trigger_batch(chunk(batch_id, indexes))
    await stage.engine.trigger_batch(chunk(batch_id, [], total=6))
    listed = await stage.engine.list_runs(RunSelection(batch_id=batch_id))
    assert sorted(run.id for run in listed) == [ids.item_run_id(batch_id, i) for i in range(6)]


async def test_an_item_given_twice_is_one_run(stage: Stage, worker: Worker) -> None:
    batch_id = ids.new_batch_id()
    for indexes in ([0, 1, 2], [1, 2, 3], [0, 3]):
        taken = await stage.engine.trigger_batch(chunk(batch_id, indexes))
        assert taken.items == tuple(Triggered(run_id=ids.item_run_id(batch_id, i)) for i in indexes)
    assert await stage.count("runs") == 4


async def test_an_item_given_again_after_its_run_is_over_is_not_run_again(stage: Stage, worker: Worker) -> None:
    batch_id = ids.new_batch_id()
    await stage.engine.trigger_batch(chunk(batch_id, [0, 1]))
    await worker.succeed(*await worker.lease())
    await stage.engine.trigger_batch(chunk(batch_id, [0, 1, 2]))
    assert [lease.run_id for lease in await worker.lease()] == [ids.item_run_id(batch_id, 2)]


async def test_a_parent_resumes_when_every_item_is_final(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id, taken = await worker.batch(parent, 4)
    assert is_pending(taken)
    assert await stage.status(parent.run_id) is RunStatus.WAITING
    a, b, c, d = await worker.lease()
    await worker.succeed(a, output="0")
    await worker.fail(b)
    await stage.engine.cancel_runs([c.run_id], "not needed")
    assert await worker.lease() == []
    await worker.succeed(d, output="3")
    resumed = await worker.lease_one()
    assert resumed.results == (WaitResult(operation="0"),)
    results = await stage.engine.read_batch_results(batch_id)
    assert [result.run_id for result in results] == [ids.item_run_id(batch_id, i) for i in range(4)]
    assert [(r.status, r.output) for r in results] == [
        (RunStatus.COMPLETED, "0"),
        (RunStatus.FAILED, None),
        (RunStatus.CANCELED, None),
        (RunStatus.COMPLETED, "3"),
    ]
    assert results[1].error == BOOM
    await worker.succeed(resumed)


async def test_results_are_read_in_pages(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id, _ = await worker.batch(parent, 7)
    await worker.succeed(*await worker.lease())
    pages = [await stage.engine.read_batch_results(batch_id, after=after, limit=3) for after in (-1, 2, 5, 6)]
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    assert [r.run_id for page in pages for r in page] == [ids.item_run_id(batch_id, i) for i in range(7)]


async def test_items_that_end_before_the_batch_is_sealed_count(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id = ids.new_batch_id()
    taken = await stage.engine.trigger_batch(chunk(batch_id, [0, 1], origin=origin(parent, "0")))
    assert taken.wait is None
    assert await stage.status(parent.run_id) is RunStatus.DEQUEUED
    await worker.succeed(*await worker.lease())
    taken = await stage.engine.trigger_batch(chunk(batch_id, [], total=2, origin=origin(parent, "0")))
    assert not is_pending(taken)
    assert await stage.status(parent.run_id) is RunStatus.DEQUEUED
    assert len(await stage.engine.read_batch_results(batch_id)) == 2
    await worker.succeed(parent)


async def test_an_empty_batch_is_over_at_once(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id, taken = await worker.batch(parent, 0)
    assert isinstance(taken, ChunkTaken)
    assert (taken.items, taken.is_sealed, taken.wait) == ((), True, WaitResult(operation="0"))
    assert await stage.engine.read_batch_results(batch_id) == []
    await worker.succeed(parent)


async def test_a_batch_that_nobody_waits_for_leaves_its_parent_alone(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id = ids.new_batch_id()
    whole = chunk(batch_id, [0, 1], total=2, origin=origin(parent, "0", wait=False))
    assert (await stage.engine.trigger_batch(whole)).wait is None
    items = await worker.lease()
    assert {item.parent_run_id for item in items} == {parent.run_id}
    await worker.succeed(*items)
    await worker.succeed(parent)
    assert await stage.count("batch_items") == 0


async def test_sealing_twice_is_sealing_once(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id = ids.new_batch_id()
    whole = chunk(batch_id, [0], total=1, origin=origin(parent, "0"))
    for _ in range(2):
        assert is_pending(await stage.engine.trigger_batch(whole))
    await worker.succeed(await worker.lease_one())
    assert is_pending(await stage.engine.trigger_batch(whole))
    resumed = await worker.lease_one()
    assert [result.operation for result in resumed.results] == ["0"]
    await worker.succeed(resumed)


async def test_a_retry_of_an_item_keeps_its_parent_waiting(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    await worker.batch(parent, 2)
    first, second = await worker.lease()
    await worker.succeed(first)
    await worker.fail(second, retry_in=timedelta(0))
    await stage.a_moment_passes()
    assert await stage.status(parent.run_id) is RunStatus.WAITING
    await worker.fail(await worker.lease_one())
    assert (await worker.lease_one()).run_id == parent.run_id


async def test_an_item_that_a_finished_run_answers_by_its_key_counts_at_once(stage: Stage, worker: Worker) -> None:
    done = await stage.leased(worker, **KEYED)
    await worker.succeed(done, output="8")
    parent = await stage.leased(worker)
    batch_id, taken = await worker.batch(parent, 1, **KEYED)
    assert taken.items == (Triggered(run_id=done.run_id, is_cached=True),)
    assert not is_pending(taken)
    (result,) = await stage.engine.read_batch_results(batch_id)
    assert (result.run_id, result.output) == (done.run_id, "8")
    await worker.succeed(parent)


async def test_an_item_that_a_live_run_answers_by_its_key_counts_when_that_ends(stage: Stage, worker: Worker) -> None:
    live = await stage.leased(worker, **KEYED)
    parent = await stage.leased(worker)
    batch_id, taken = await worker.batch(parent, 1, **KEYED)
    assert (taken.items[0].is_cached, taken.wait) == (True, Suspended())
    await worker.succeed(live, output="8")
    assert (await worker.lease_one()).run_id == parent.run_id
    assert [r.output for r in await stage.engine.read_batch_results(batch_id)] == ["8"]


async def test_one_key_in_several_items_is_one_run_that_counts_for_each(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id, taken = await worker.batch(parent, 3, **KEYED)
    assert [item.is_cached for item in taken.items] == [False, True, True]
    assert len({item.run_id for item in taken.items}) == 1
    await worker.succeed(await worker.lease_one(), output="1")
    assert (await worker.lease_one()).run_id == parent.run_id
    assert [r.output for r in await stage.engine.read_batch_results(batch_id)] == ["1", "1", "1"]


async def test_an_aborted_batch_takes_no_more_items(stage: Stage, worker: Worker) -> None:
    batch_id = ids.new_batch_id()
    await stage.engine.trigger_batch(chunk(batch_id, [0]))
    await stage.engine.abort_batch(batch_id, "the iterable raised")
    refused = await stage.engine.trigger_batch(chunk(batch_id, [1]))
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (409, "batch_aborted")
    assert [lease.run_id for lease in await worker.lease()] == [ids.item_run_id(batch_id, 0)]


async def test_a_batch_aborted_before_its_first_chunk_arrived_takes_none(stage: Stage, worker: Worker) -> None:
    """The chunk may be on its way still, on a connection that was given up."""
    batch_id = ids.new_batch_id()
    await stage.engine.abort_batch(batch_id, "the iterable raised")
    assert isinstance(await stage.engine.trigger_batch(chunk(batch_id, [0])), Refused)
    assert await stage.count("runs") == 0


async def test_a_parent_whose_batch_was_aborted_goes_on(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id = ids.new_batch_id()
    await stage.engine.trigger_batch(chunk(batch_id, [0], origin=origin(parent, "0")))
    await stage.engine.abort_batch(batch_id, "the iterable raised")
    assert isinstance(
        await stage.engine.trigger_batch(chunk(batch_id, [1], total=2, origin=origin(parent, "0"))), Refused
    )
    assert await stage.status(parent.run_id) is RunStatus.DEQUEUED
    await worker.succeed(*await worker.lease())
    await worker.succeed(parent)
    assert [await stage.count(table) for table in ("batch_items", "waitpoints")] == [0, 0]


async def test_a_sealed_batch_is_not_aborted(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id, _ = await worker.batch(parent, 1)
    await stage.engine.abort_batch(batch_id, "too late")
    await worker.succeed(await worker.lease_one())
    (result,) = (await worker.lease_one()).results
    assert result.error is None


async def test_a_batch_of_a_stale_parent_makes_nothing(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    await worker.hand_back(parent)
    batch_id = ids.new_batch_id()
    stale = await stage.engine.trigger_batch(chunk(batch_id, [0], total=1, origin=origin(parent, "0")))
    assert stale == Stale(run_id=parent.run_id)
    assert [await stage.count(table) for table in ("runs", "batches", "journal")] == [1, 0, 0]


async def test_another_runner_gives_the_rest_of_an_unsealed_batch(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id = ids.new_batch_id()
    await stage.engine.trigger_batch(chunk(batch_id, [0, 1], origin=origin(parent, "0")))
    await worker.succeed(*(await worker.lease())[:1])
    await worker.end()
    other = await stage.session(worker.version)
    leases = {lease.run_id: lease for lease in await other.lease()}
    again = leases.pop(parent.run_id)
    (entry,) = await journal_of(stage.engine, holder(again))
    assert (entry.ref, entry.is_sealed) == (batch_id, False)
    taken = await stage.engine.trigger_batch(chunk(batch_id, [0, 1, 2], total=3, origin=origin(again, "0")))
    assert is_pending(taken)
    leases |= {lease.run_id: lease for lease in await other.lease()}
    assert set(leases) == {ids.item_run_id(batch_id, i) for i in (1, 2)}
    await other.succeed(*leases.values())
    assert (await other.lease_one()).run_id == parent.run_id


async def test_delayed_items_are_waited_for(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id, _ = await worker.batch(parent, 1, delay=SOON)
    assert await stage.status(ids.item_run_id(batch_id, 0)) is RunStatus.DELAYED
    await stage.engine.cancel_runs([ids.item_run_id(batch_id, 0)], "x")
    assert (await worker.lease_one()).run_id == parent.run_id


async def test_two_batches_at_once_and_a_child_are_waited_for_together(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    await worker.batch(parent, 2, "0")
    await worker.batch(parent, 3, "1")
    assert (await worker.call(parent, "2")).wait == Suspended()
    leases = await worker.lease()
    await worker.succeed(*(lease for lease in leases if lease.batch_id is not None))
    resumed = await worker.lease_one()
    assert sorted(result.operation for result in resumed.results) == ["0", "1"]
    assert await stage.engine.suspend([Suspension(holder=holder(resumed))]) == [Suspended()]
    await worker.succeed(*(lease for lease in leases if lease.batch_id is None))
    assert [result.operation for result in (await worker.lease_one()).results] == ["2"]


async def test_a_thousand_items_are_one_chunk_and_one_completion(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id, _ = await worker.batch(parent, 1000)
    leases = await worker.lease(**{"async": 1000})
    await worker.succeed(*leases)
    assert (await worker.lease_one()).run_id == parent.run_id
    assert len(await stage.engine.read_batch_results(batch_id, limit=2000)) == 1000


async def test_a_run_may_have_another_batch_of_the_same_tasks_in_its_next_attempt(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    first, _ = await worker.batch(parent, 1)
    await worker.succeed(await worker.lease_one(), output="1")
    resumed = await worker.lease_one()
    await worker.fail(resumed, retry_in=timedelta(0))
    await stage.a_moment_passes()
    again = await worker.lease_one()
    second, _ = await worker.batch(again, 1)
    await worker.succeed(await worker.lease_one(), output="2")
    await worker.lease_one()
    assert [(await stage.engine.read_batch_results(b))[0].output for b in (first, second)] == ["1", "2"]


async def test_runs_of_other_callers_are_no_items(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id, _ = await worker.batch(parent, 1)
    await stage.engine.trigger([request(run_id=ids.item_run_id(batch_id, 7))])
    leases = await worker.lease()
    await worker.succeed(leases[-1])
    assert await stage.status(parent.run_id) is RunStatus.WAITING
    await worker.succeed(leases[0])
    assert await stage.status(parent.run_id) is RunStatus.QUEUED


# ---- in two phases


async def test_a_batch_of_a_known_size_is_sealed_by_its_last_item(stage: Stage, worker: Worker) -> None:
    batch_id = ids.new_batch_id()
    created = await stage.engine.create_batch(BatchCreation(batch_id=batch_id, count=5))
    assert created == BatchCreated(batch_id=batch_id, count=5)
    for indexes, standing in (([3, 4], (2, 0, 2, False)), ([0, 3, 0], (1, 2, 3, False)), ([2, 1], (2, 0, 5, True))):
        taken = await stage.engine.trigger_batch(chunk(batch_id, indexes))
        assert isinstance(taken, ChunkTaken)
        assert (taken.accepted, taken.deduplicated, taken.enqueued, taken.is_sealed) == standing
        assert taken.expected == 5
    assert await stage.count("runs") == 5


async def test_a_sealed_batch_takes_nothing_and_says_so(stage: Stage, worker: Worker) -> None:
    batch_id = ids.new_batch_id()
    await stage.engine.trigger_batch(chunk(batch_id, [0, 1], total=2))
    again = await stage.engine.trigger_batch(chunk(batch_id, [0, 1, 2]))
    assert isinstance(again, ChunkTaken)
    assert (again.accepted, again.deduplicated, again.is_sealed) == (0, 0, True)
    assert await stage.count("runs") == 2


@pytest.mark.parametrize(("indexes", "total"), [([2, 3], None), ([-1], None), ([0], 4), ([0], 2)])
async def test_items_beyond_the_total_are_refused_and_leave_the_batch_as_it_was(
    stage: Stage, worker: Worker, indexes: list[int], total: int | None
) -> None:
    batch_id = ids.new_batch_id()
    await stage.engine.create_batch(BatchCreation(batch_id=batch_id, count=3))
    refused = await stage.engine.trigger_batch(chunk(batch_id, indexes, total=total))
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (422, "batch_index")
    assert "has 3 items" in refused.message
    assert await stage.count("runs") == 0
    taken = await stage.engine.trigger_batch(chunk(batch_id, range(3)))
    assert isinstance(taken, ChunkTaken)
    assert taken.is_sealed


async def test_a_total_below_what_was_given_is_refused(stage: Stage) -> None:
    batch_id = ids.new_batch_id()
    await stage.engine.trigger_batch(chunk(batch_id, [0, 5]))
    assert isinstance(await stage.engine.trigger_batch(chunk(batch_id, [], total=3)), Refused)
    (record,) = await stage.engine.retrieve_batches([batch_id])
    assert record is not None
    assert (record.status, list(record.run_ids)) == (BatchStatus.PENDING, [ids.item_run_id(batch_id, i) for i in (0, 5)])


async def test_a_batch_of_another_environment_is_not_found(stage: Stage, dsn: str) -> None:
    batch_id = ids.new_batch_id()
    await stage.engine.trigger_batch(chunk(batch_id, [0]))
    elsewhere = connect(dsn, environment="prod")
    refused = await elsewhere.trigger_batch(chunk(batch_id, [1], total=2))
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (404, "batch_not_found")
    assert await elsewhere.retrieve_batches([batch_id]) == [None]
    await elsewhere.close()


async def test_a_run_waits_for_a_batch_before_its_items_are_given(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id = ids.new_batch_id()
    creation = BatchCreation(batch_id=batch_id, count=2, origin=origin(parent, "0"))
    for _ in range(2):
        assert await stage.engine.create_batch(creation) == BatchCreated(batch_id=batch_id, count=2, wait=Suspended())
    for index in range(2):
        assert isinstance(await stage.engine.trigger_batch(chunk(batch_id, [index])), ChunkTaken)
        item = await worker.lease_one()
        assert item.parent_run_id == parent.run_id
        await worker.succeed(item)
    assert (await worker.lease_one()).run_id == parent.run_id


async def test_items_given_from_outside_are_refused_when_the_batch_s_run_is_over(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id = ids.new_batch_id()
    await stage.engine.create_batch(BatchCreation(batch_id=batch_id, count=2, origin=origin(parent, "0", wait=False)))
    await stage.engine.cancel_runs([parent.run_id], "stop")
    assert isinstance(await stage.engine.trigger_batch(chunk(batch_id, [0])), Refused)
    assert await stage.count("runs") == 0


async def test_a_stale_run_makes_no_batch(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    await worker.hand_back(parent)
    creation = BatchCreation(batch_id=ids.new_batch_id(), count=2, origin=origin(parent, "0"))
    assert await stage.engine.create_batch(creation) == Stale(run_id=parent.run_id)
    assert await stage.count("batches") == 0


# ---- keys of batches


async def test_a_key_gives_the_earlier_batch(stage: Stage) -> None:
    first = await stage.engine.create_batch(BatchCreation(batch_id=ids.new_batch_id(), count=2, key=BATCH_KEY))
    again = await stage.engine.create_batch(BatchCreation(batch_id=ids.new_batch_id(), count=9, key=BATCH_KEY))
    assert (first.is_cached, again) == (False, BatchCreated(batch_id=first.batch_id, count=2, is_cached=True))
    await stage.engine.trigger_batch(chunk(first.batch_id, [0, 1]))
    sealed = await stage.engine.create_batch(BatchCreation(batch_id=ids.new_batch_id(), key=BATCH_KEY))
    assert (sealed.batch_id, sealed.is_sealed) == (first.batch_id, True)
    (record,) = await stage.engine.retrieve_batches([first.batch_id])
    assert record is not None
    assert record.idempotency_key == "k"


async def test_the_key_of_an_aborted_batch_is_free(stage: Stage) -> None:
    first = await stage.engine.create_batch(BatchCreation(batch_id=ids.new_batch_id(), key=BATCH_KEY))
    await stage.engine.abort_batch(first.batch_id, "the iterable raised")
    again = await stage.engine.create_batch(BatchCreation(batch_id=ids.new_batch_id(), key=BATCH_KEY))
    assert not again.is_cached


async def test_the_key_of_a_batch_is_free_after_its_time(stage: Stage, clock: Clock) -> None:
    first = await stage.engine.create_batch(BatchCreation(batch_id=ids.new_batch_id(), key=BATCH_KEY))
    clock.advance(BATCH_KEY.ttl)
    again = await stage.engine.create_batch(BatchCreation(batch_id=ids.new_batch_id(), key=BATCH_KEY))
    assert again.batch_id != first.batch_id


async def test_a_run_that_asks_by_key_records_the_batch_that_it_stands_for(stage: Stage, worker: Worker) -> None:
    first = await stage.engine.create_batch(BatchCreation(batch_id=ids.new_batch_id(), key=BATCH_KEY))
    run = await stage.leased(worker)
    asked = BatchCreation(batch_id=ids.new_batch_id(), key=BATCH_KEY, origin=origin(run, "0", wait=False))
    created = await stage.engine.create_batch(asked)
    assert (created.batch_id, created.is_cached) == (first.batch_id, True)
    (entry,) = await journal_of(stage.engine, holder(run))
    assert (entry.ref, entry.is_cached) == (first.batch_id, True)


def test_a_batch_that_is_waited_for_has_no_key() -> None:
    held = Origin(holder=Holder(run_id=ids.new_run_id(), fence=1), operation="0", wait=True)
    with pytest.raises(ValueError, match="give its items keys of their own"):
        BatchCreation(batch_id=ids.new_batch_id(), key=BATCH_KEY, origin=held)


# ---- items that cannot be triggered


async def test_an_item_over_the_limit_fails_alone_and_keeps_no_payload(stage: Stage, worker: Worker) -> None:
    batch_id = ids.new_batch_id()
    small, large = chunk(batch_id, [0]), chunk(batch_id, [1], payload=TOO_LARGE)
    await stage.engine.trigger_batch(replace(small, items=(*small.items, *large.items), total=2))
    failed = await stage.run(ids.item_run_id(batch_id, 1))
    assert (failed.status, failed.payload) == (RunStatus.SYSTEM_FAILURE, None)
    (record,) = await stage.engine.retrieve_batches([batch_id])
    assert record is not None
    assert (record.status, record.refused, record.failed) == (BatchStatus.PARTIAL_FAILED, 1, 1)
    (error,) = record.errors
    assert (error.index, error.task_id, error.run_id) == (1, "work", failed.id)
    assert "over the limit of 10,485,760" in error.error.message
    await worker.succeed(await worker.lease_one())
    (record,) = await stage.engine.retrieve_batches([batch_id])
    assert record is not None
    assert record.status is BatchStatus.COMPLETED


async def test_an_item_that_cannot_be_triggered_counts_for_who_waits(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id = ids.new_batch_id()
    place = origin(parent, "0")
    await stage.engine.trigger_batch(chunk(batch_id, [0], origin=place, payload=TOO_LARGE))
    for _ in range(2):
        assert is_pending(await stage.engine.trigger_batch(chunk(batch_id, [1], total=2, origin=place)))
    await worker.succeed(await worker.lease_one())
    (result,) = (await worker.lease_one()).results
    assert result.error is None
    outcomes = await stage.engine.read_batch_results(batch_id)
    assert [outcome.status for outcome in outcomes] == [RunStatus.SYSTEM_FAILURE, RunStatus.COMPLETED]


async def test_a_batch_of_which_nothing_could_be_triggered_fails_who_waits(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id, taken = await worker.batch(parent, 2, payload=TOO_LARGE)
    assert isinstance(taken.wait, WaitResult)
    assert taken.wait.error is not None
    assert "none of its 2 items could be triggered" in taken.wait.error.message
    (record,) = await stage.engine.retrieve_batches([batch_id])
    assert record is not None
    assert (record.status, len(record.errors)) == (BatchStatus.ABORTED, 2)
    (entry,) = await journal_of(stage.engine, holder(parent))
    assert entry.result == taken.wait
    await worker.succeed(parent)


async def test_who_waits_from_the_start_wakes_when_nothing_could_be_triggered(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id = ids.new_batch_id()
    await stage.engine.create_batch(BatchCreation(batch_id=batch_id, count=1, origin=origin(parent, "0")))
    await stage.engine.trigger_batch(chunk(batch_id, [0], payload=TOO_LARGE))
    (result,) = (await worker.lease_one()).results
    assert result.error is not None


# ---- who waits always wakes


async def test_who_waits_for_an_aborted_batch_wakes_with_an_error(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id = ids.new_batch_id()
    await stage.engine.create_batch(BatchCreation(batch_id=batch_id, count=2, origin=origin(parent, "0")))
    await stage.engine.trigger_batch(chunk(batch_id, [0]))
    await stage.engine.abort_batch(batch_id, "the stream broke")
    resumed = {lease.run_id: lease for lease in await worker.lease()}[parent.run_id]
    (result,) = resumed.results
    assert result.error is not None
    assert (result.error.code, result.error.message) == ("BATCH_ABORTED", "the stream broke")


async def test_a_batch_whose_items_stop_coming_is_aborted(stage: Stage, worker: Worker, clock: Clock) -> None:
    parent = await stage.leased(worker)
    batch_id = ids.new_batch_id()
    await stage.engine.create_batch(BatchCreation(batch_id=batch_id, count=3, origin=origin(parent, "0")))
    clock.advance(timedelta(minutes=20))
    await stage.engine.trigger_batch(chunk(batch_id, [0]))
    await worker.succeed(await worker.lease_one())
    clock.advance(timedelta(minutes=29))
    await stage.carry_on()
    assert await stage.status(parent.run_id) is RunStatus.WAITING
    clock.advance(timedelta(minutes=1))
    await stage.carry_on()
    (result,) = (await worker.lease_one()).results
    assert result.error is not None
    assert "did not come" in result.error.message
    (record,) = await stage.engine.retrieve_batches([batch_id])
    assert record is not None
    assert (record.status, record.reason) == (BatchStatus.ABORTED, result.error.message)
    assert isinstance(await stage.engine.trigger_batch(chunk(batch_id, [1])), Refused)


async def test_a_batch_that_a_live_run_gives_is_not_aborted(stage: Stage, worker: Worker, clock: Clock) -> None:
    """However long its process is gone: it goes on with it when it is executed again."""
    parent = await stage.leased(worker)
    batch_id = ids.new_batch_id()
    await stage.engine.trigger_batch(chunk(batch_id, [0], origin=origin(parent, "0")))
    for _ in range(3):
        clock.advance(timedelta(hours=1))
        await stage.carry_on()
    assert is_pending(await stage.engine.trigger_batch(chunk(batch_id, [1], total=2, origin=origin(parent, "0"))))


async def test_a_batch_that_a_run_left_unsealed_is_aborted(stage: Stage, worker: Worker, clock: Clock) -> None:
    parent = await stage.leased(worker)
    batch_id = ids.new_batch_id()
    await stage.engine.trigger_batch(chunk(batch_id, [0], origin=origin(parent, "0", wait=False)))
    await worker.succeed(parent)
    clock.advance(timedelta(minutes=30))
    await stage.carry_on()
    (record,) = await stage.engine.retrieve_batches([batch_id])
    assert record is not None
    assert record.status is BatchStatus.ABORTED


# ---- reading


async def test_a_batch_is_read_as_it_stands(stage: Stage, worker: Worker) -> None:
    done = await stage.leased(worker, **KEYED)
    await worker.succeed(done)
    batch_id = ids.new_batch_id()
    await stage.engine.trigger_batch(chunk(batch_id, [0], **KEYED))
    await stage.engine.trigger_batch(chunk(batch_id, [1, 2, 3], total=4))
    (record,) = await stage.engine.retrieve_batches([batch_id])
    assert record is not None
    assert (record.status, record.run_count, record.succeeded) == (BatchStatus.PROCESSING, 4, 1)
    assert list(record.run_ids) == [done.run_id, *(ids.item_run_id(batch_id, i) for i in (1, 2, 3))]
    one, two, three = await worker.lease()
    await worker.succeed(one)
    await worker.fail(two)
    await stage.engine.cancel_runs([three.run_id], "stop")
    (record,) = await stage.engine.retrieve_batches([batch_id])
    assert record is not None
    assert (record.succeeded, record.failed, record.cancelled) == (2, 1, 1)
    assert record.status is BatchStatus.COMPLETED
    assert record.completed_at is not None


async def test_a_batch_can_be_read_when_who_waited_for_it_is_over(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id, _ = await worker.batch(parent, 2)
    await worker.succeed(*await worker.lease())
    await worker.succeed(await worker.lease_one())
    (record,) = await stage.engine.retrieve_batches([batch_id])
    assert record is not None
    assert (record.status, record.succeeded) == (BatchStatus.COMPLETED, 2)


async def test_there_is_no_batch_to_read_of_an_unknown_id(stage: Stage) -> None:
    assert await stage.engine.retrieve_batches([ids.new_batch_id()]) == [None]
