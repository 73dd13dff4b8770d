"""The record of what an attempt has done, from which another runner goes on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from detent.protocol import ids
from detent.protocol.fence import Stale
from detent.protocol.journal import JournalEntry, JournalRead, StepRecord
from detent.protocol.operations import OperationKind, Stamp
from detent.protocol.runs import RunOutcome
from detent.protocol.status import RunStatus
from detent.protocol.waits import WaitResult
from tests.database import Clock
from tests.engine.stage import Stage, Worker, child, chunk, holder, journal_of, origin, time_wait


async def test_operations_are_recorded_in_order_with_their_results(stage: Stage, worker: Worker, clock: Clock) -> None:
    lease = await stage.leased(worker)
    (detached,) = await stage.engine.trigger_children([child(lease, "a/0", "mail", wait=False)])
    wait = time_wait(lease, "a/1", timedelta(minutes=1))
    await stage.engine.wait_for([wait])
    (awaited,) = await stage.engine.trigger_children([child(lease, "a/2")])
    batch_id = ids.new_batch_id()
    await stage.engine.trigger_batch(chunk(batch_id, [0], total=1, origin=origin(lease, "a/3"), task_id="mail"))
    other = ids.new_batch_id()
    await stage.engine.trigger_batch(
        chunk(other, [0], total=1, origin=origin(lease, "a/4", wait=False), task_id="mail")
    )
    running = await worker.lease_one()
    clock.advance(timedelta(minutes=2))
    await stage.tick()
    await worker.succeed(running, output="2")
    outcome = RunOutcome(run_id=awaited.triggered.run_id, task_id="work", status=RunStatus.COMPLETED, output="2")
    assert await journal_of(stage.engine, holder(lease)) == [
        JournalEntry(operation="a/0", kind=OperationKind.TRIGGER, fingerprint="mail", ref=detached.triggered.run_id),
        JournalEntry(
            operation="a/1",
            kind=OperationKind.TIME,
            fingerprint="time",
            ref=wait.waitpoint_id,
            result=WaitResult(operation="a/1"),
        ),
        JournalEntry(
            operation="a/2",
            kind=OperationKind.CHILD,
            fingerprint="work",
            ref=awaited.triggered.run_id,
            result=WaitResult(operation="a/2", child=outcome),
        ),
        JournalEntry(operation="a/3", kind=OperationKind.BATCH_WAIT, fingerprint="batch", ref=batch_id),
        JournalEntry(operation="a/4", kind=OperationKind.BATCH, fingerprint="batch", ref=other),
    ]


async def test_a_long_journal_is_read_in_pages(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await stage.engine.trigger_children([child(lease, str(i), wait=False) for i in range(25)])
    pages: list[list[JournalEntry]] = [[]]
    while not len(pages) > 1 or pages[-1]:
        after = pages[-1][-1].number if pages[-1] else 0
        (page,) = await stage.engine.read_journals([JournalRead(holder=holder(lease), after=after)], limit=10)
        assert isinstance(page, list)
        pages.append(page)
    assert [len(page) for page in pages] == [0, 10, 10, 5, 0]
    assert [entry.operation for page in pages for entry in page] == [str(i) for i in range(25)]


async def test_a_page_of_each_of_many_journals_is_read_in_one_call(stage: Stage, worker: Worker) -> None:
    leases = [await stage.leased(worker) for _ in range(3)]
    # Recorded in turns: the numbers of one journal have gaps.
    for i in range(5):
        await stage.engine.trigger_children([child(lease, f"{i}", wait=False) for lease in leases[:2]])
    reads = [JournalRead(holder=holder(lease)) for lease in leases]
    first, second, third = await stage.engine.read_journals(reads, limit=3)
    assert isinstance(first, list)
    assert isinstance(second, list)
    assert [[entry.operation for entry in page] for page in (first, second)] == [["0", "1", "2"]] * 2
    assert third == []
    rest = await stage.engine.read_journals([replace(reads[0], after=first[-1].number), reads[1]], limit=3)
    assert [[entry.operation for entry in page] for page in rest if isinstance(page, list)] == [
        ["3", "4"],
        ["0", "1", "2"],
    ]


async def test_an_entry_tells_when_it_was_recorded_and_after_which_answers(
    stage: Stage, worker: Worker, clock: Clock
) -> None:
    lease = await stage.leased(worker)
    stamps = [Stamp(), Stamp(answers=1), Stamp(answers=3, seen=("b", "a")), Stamp(answers=3, seen=())]
    places = [replace(origin(lease, f"{i}"), stamp=stamp, suspends=False) for i, stamp in enumerate(stamps)]
    await stage.engine.wait_for([replace(time_wait(lease, "0"), origin=places[0])])
    await stage.engine.trigger_children([replace(child(lease, "1"), origin=places[1])])
    clock.advance(timedelta(days=1))
    await stage.engine.trigger_batch(chunk(ids.new_batch_id(), [0], total=1, origin=places[2]))
    await stage.engine.record_steps([StepRecord(origin=places[3], fingerprint="f", error='{"name": "E"}')])
    (page,) = await stage.engine.read_journals([JournalRead(holder=holder(lease))])
    assert isinstance(page, list)
    assert [entry.stamp for entry in page] == stamps
    ages = [datetime.now(UTC) - entry.recorded_at for entry in page if entry.recorded_at is not None]
    assert [round(age / timedelta(days=1)) for age in ages] == [1, 1, 0, 0]
    assert [entry.number for entry in page] == sorted({entry.number for entry in page})
    assert (page[3].output, page[3].error, page[3].ref, page[3].result) == (None, '{"name": "E"}', "", None)


async def test_a_stale_worker_reads_no_journal(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.hand_back(lease)
    assert await journal_of(stage.engine, holder(lease)) == Stale(run_id=lease.run_id)


async def test_another_runner_finds_the_journal(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.call(lease, "0", wait=False)
    await worker.end()
    other = await stage.session(worker.version)
    again = next(x for x in await other.lease() if x.run_id == lease.run_id)
    assert (again.has_journal, again.is_resumed, again.attempt) == (True, False, 1)
    (entry,) = await journal_of(stage.engine, holder(again))
    assert entry.operation == "0"


async def test_an_operation_recorded_before_is_answered_as_then(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    first = await worker.call(lease, "0", wait=False)
    assert await worker.call(lease, "0", wait=False) == first
    assert await stage.count("runs") == 2


async def test_a_retry_starts_with_an_empty_journal_and_may_use_the_same_places(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    first = await worker.call(lease, "0", wait=False)
    await worker.fail(lease, retry_in=timedelta(0))
    await stage.a_moment_passes()
    again = next(x for x in await worker.lease() if x.run_id == lease.run_id)
    assert await journal_of(stage.engine, holder(again)) == []
    second = await worker.call(again, "0", wait=False)
    assert second.triggered.run_id != first.triggered.run_id


async def test_a_batch_is_unsealed_until_its_last_chunk(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    batch_id = ids.new_batch_id()
    await stage.engine.trigger_batch(chunk(batch_id, [0], origin=origin(lease, "0")))
    assert [entry.is_sealed for entry in await journal_of(stage.engine, holder(lease))] == [False]
    await stage.engine.trigger_batch(chunk(batch_id, [1], total=2, origin=origin(lease, "0")))
    assert [entry.is_sealed for entry in await journal_of(stage.engine, holder(lease))] == [True]


async def test_nothing_is_left_of_a_journal_when_its_run_ends(stage: Stage, worker: Worker, clock: Clock) -> None:
    lease = await stage.leased(worker)
    await worker.call(lease, "0")
    await worker.sleep(lease, "1", minutes=1)
    batch_id = ids.new_batch_id()
    await stage.engine.trigger_batch(chunk(batch_id, [0, 1], total=2, origin=origin(lease, "2")))
    clock.advance(timedelta(minutes=2))
    await stage.tick()
    # Woken by the moment, it is the first to be leased; its children end, and it after them.
    resumed, *children = sorted(await worker.lease(), key=lambda taken: taken.run_id != lease.run_id)
    await worker.succeed(*children)
    await worker.succeed(resumed)
    tables = ("journal", "waits", "waitpoints", "batch_items", "runs", "inputs", "ready", "endings")
    assert {table: await stage.count(table) for table in tables} == dict.fromkeys(tables, 0)
    assert await stage.count("history") == 4


async def test_how_long_ago_something_was_recorded_is_told_by_the_clock_of_waits(
    stage: Stage, worker: Worker, clock: Clock
) -> None:
    lease = await stage.leased(worker)
    clock.advance(timedelta(days=1))
    await stage.engine.trigger_children([child(lease, "a/0", wait=False)])
    clock.advance(timedelta(hours=1))
    (page,) = await stage.engine.read_journals([JournalRead(holder=holder(lease))])
    assert isinstance(page, list)
    (entry,) = page
    assert entry.recorded_at is not None
    ((age,),) = await stage.query("select extract(epoch from clock_timestamp() - %s)", (entry.recorded_at,))
    assert 3600 <= age < 3660
