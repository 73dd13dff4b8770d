"""The same done to many runs, part by part."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from detent.engine import bulk
from detent.engine.backend import connect
from detent.protocol import ids
from detent.protocol.bulk import BulkKind, BulkRecord, BulkRequest, BulkStatus
from detent.protocol.ids import RunId
from detent.protocol.selection import RunSelection
from detent.protocol.status import RunStatus
from tests.database import Clock
from tests.engine.stage import SOON, Stage, Worker, chunk

CANCELED, COMPLETED, QUEUED = RunStatus.CANCELED, RunStatus.COMPLETED, RunStatus.QUEUED


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_MOST_CANCELLED", 3)
    monkeypatch.setattr(bulk, "_MOST_REPLAYED", 3)


def cancel(runs: RunSelection | tuple[RunId, ...], **options: Any) -> BulkRequest:
    return BulkRequest(bulk_id=ids.new_bulk_id(), kind=BulkKind.CANCEL, runs=runs, reason="in bulk", **options)


def replay(runs: RunSelection | tuple[RunId, ...], **options: Any) -> BulkRequest:
    return BulkRequest(bulk_id=ids.new_bulk_id(), kind=BulkKind.REPLAY, runs=runs, **options)


async def carried_out(stage: Stage, asked: BulkRequest) -> BulkRecord:
    await stage.engine.create_bulk_action(asked)
    while await stage.carry_on():
        pass
    (record,) = await stage.engine.retrieve_bulk_actions([asked.bulk_id])
    assert record is not None
    return record


def counts(record: BulkRecord) -> tuple[BulkStatus, int, int, int]:
    return record.status, record.total, record.success, record.failure


async def many(stage: Stage, count: int, task_id: str = "work", **options: Any) -> list[RunId]:
    return [await stage.trigger(task_id, **options) for _ in range(count)]


async def test_all_runs_that_a_filter_selects_are_cancelled(stage: Stage, worker: Worker) -> None:
    doomed, others = await many(stage, 7), await many(stage, 2, "other")
    record = await carried_out(stage, cancel(RunSelection(task_ids=("work",)), name="clean up"))
    assert counts(record) == (BulkStatus.COMPLETED, 7, 7, 0)
    assert (record.kind, record.name) == (BulkKind.CANCEL, "clean up")
    assert record.completed_at is not None
    assert await stage.statuses(*doomed, *others) == [CANCELED] * 7 + [RunStatus.PENDING_VERSION] * 2
    cancelled = await stage.run(doomed[0])
    assert cancelled.error is not None
    assert cancelled.error.message == "in bulk"


async def test_runs_are_replayed_with_their_input(stage: Stage, worker: Worker) -> None:
    old = await many(stage, 4, payload='{"n": 1}', tags=("t",))
    await worker.fail(*await worker.lease())
    record = await carried_out(stage, replay(RunSelection(statuses=(RunStatus.FAILED,))))
    assert counts(record) == (BulkStatus.COMPLETED, 4, 4, 0)
    made = await stage.engine.list_runs(RunSelection(statuses=(QUEUED,)))
    assert {run.replay_of for run in made} == set(old)
    assert {(run.payload, run.tags) for run in made} == {('{"n": 1}', ("t",))}


async def test_the_replays_of_an_action_are_not_replayed_by_it(stage: Stage, worker: Worker) -> None:
    await many(stage, 4)
    record = await carried_out(stage, replay(RunSelection(task_ids=("work",))))
    assert counts(record) == (BulkStatus.COMPLETED, 4, 4, 0)
    assert await stage.count("runs") == 8


async def test_runs_made_after_the_action_are_left_alone(stage: Stage, worker: Worker) -> None:
    await many(stage, 2)
    asked = cancel(RunSelection(task_ids=("work",)))
    await stage.engine.create_bulk_action(asked)
    late = await stage.trigger()
    await carried_out(stage, asked)
    assert await stage.status(late) is QUEUED


SELECTIONS = {
    "task": (RunSelection(task_ids=("other",)), {"task_id": "other"}),
    "tags": (RunSelection(tags=("b", "d")), {"tags": ("b", "c")}),
    "queue": (RunSelection(queues=("emails",)), {"queue": "emails"}),
    "status": (RunSelection(statuses=(RunStatus.DELAYED,)), {"delay": SOON}),
    "pending version": (RunSelection(statuses=(RunStatus.PENDING_VERSION,)), {"task_id": "unknown"}),
}


@pytest.mark.parametrize("name", SELECTIONS)
async def test_each_field_of_a_filter_selects(stage: Stage, name: str) -> None:
    await stage.worker("work", "other")
    selection, options = SELECTIONS[name]
    others = [await stage.trigger(), await stage.trigger(tags=("a",))]
    wanted = await stage.trigger(**options)
    record = await carried_out(stage, cancel(selection))
    assert counts(record) == (BulkStatus.COMPLETED, 1, 1, 0)
    assert await stage.statuses(wanted, *others) == [CANCELED, QUEUED, QUEUED]


async def test_runs_are_found_by_the_action_that_cancelled_or_made_them(stage: Stage, worker: Worker) -> None:
    doomed, _ = await many(stage, 4), await many(stage, 1, "other")
    cancelled = await carried_out(stage, cancel(RunSelection(task_ids=("work",))))
    replayed = await carried_out(stage, replay(RunSelection(statuses=(CANCELED,), bulk_id=cancelled.id)))

    found = await stage.engine.list_runs(RunSelection(bulk_id=cancelled.id))
    assert [run.id for run in found] == doomed[::-1]
    made = await stage.engine.list_runs(RunSelection(bulk_id=replayed.id, statuses=(QUEUED,)))
    assert {run.replay_of for run in made} == set(doomed)
    assert len(await stage.engine.list_runs(RunSelection(bulk_id=cancelled.id), before=doomed[2], limit=1)) == 1
    assert await stage.engine.list_runs(RunSelection(bulk_id=ids.new_bulk_id())) == []


async def test_a_filter_selects_by_time_version_and_batch(stage: Stage, worker: Worker, clock: Clock) -> None:
    batch_id = ids.new_batch_id()
    await stage.engine.trigger_batch(chunk(batch_id, [0, 1], total=2))
    leases = await worker.lease()
    clock.advance(timedelta(hours=1))
    young = await stage.trigger()
    noon = (await stage.run(young)).created_at
    for selection, total in (
        (RunSelection(created_before=noon), 2),
        (RunSelection(created_after=noon - timedelta(minutes=1)), 1),
        (RunSelection(versions=(worker.version,)), 2),
        (RunSelection(versions=("none",)), 0),
        (RunSelection(batch_id=batch_id, created_before=noon), 2),
        (RunSelection(batch_id=ids.new_batch_id()), 0),
    ):
        asked = await stage.engine.create_bulk_action(replay(selection))
        assert (selection, asked.total) == (selection, total)
        await stage.engine.abort_bulk_action(asked.id)
    await worker.succeed(*leases)


async def test_named_runs_that_cannot_be_acted_on_are_counted_as_failures(stage: Stage, worker: Worker) -> None:
    over, live = await many(stage, 2)
    await worker.succeed((await worker.lease(**{"async": 1}))[0])
    named = (over, live, ids.new_run_id(), live)
    assert counts(await carried_out(stage, cancel(named))) == (BulkStatus.COMPLETED, 3, 1, 2)
    assert await stage.statuses(over, live) == [COMPLETED, CANCELED]
    assert counts(await carried_out(stage, replay(named))) == (BulkStatus.COMPLETED, 3, 2, 1)


async def test_children_go_with_their_parents_and_count_if_they_were_selected(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    await worker.batch(parent, 5)
    record = await carried_out(stage, cancel(RunSelection(task_ids=("work",))))
    assert counts(record) == (BulkStatus.COMPLETED, 6, 6, 0)


async def test_runs_that_end_before_their_turn_are_failures(stage: Stage, worker: Worker) -> None:
    await many(stage, 3)
    asked = cancel(RunSelection(task_ids=("work",)))
    await stage.engine.create_bulk_action(asked)
    await worker.succeed(*await worker.lease(**{"async": 2}))
    assert counts(await carried_out(stage, asked)) == (BulkStatus.COMPLETED, 3, 1, 2)


async def test_an_aborted_action_goes_no_further(stage: Stage, worker: Worker) -> None:
    await many(stage, 5)
    asked = cancel(RunSelection(task_ids=("work",)))
    await stage.engine.create_bulk_action(asked)
    assert await stage.carry_on()
    await stage.engine.abort_bulk_action(asked.bulk_id)
    assert not await stage.carry_on()
    (record,) = await stage.engine.retrieve_bulk_actions([asked.bulk_id])
    assert record is not None
    assert counts(record) == (BulkStatus.ABORTED, 5, 3, 0)
    await stage.engine.abort_bulk_action(asked.bulk_id)
    assert await stage.count("runs") == 2


@pytest.mark.parametrize("kind", BulkKind)
async def test_an_action_that_its_process_died_with_is_carried_on_by_another(
    stage: Stage, worker: Worker, kind: BulkKind
) -> None:
    """The part is carried out again, since nobody knows how far it had come."""
    old = await many(stage, 4)
    asked = replace(cancel(RunSelection(task_ids=("work",))), kind=kind)
    await stage.engine.create_bulk_action(asked)
    await stage.carry_on()
    if kind is BulkKind.REPLAY:
        await stage.query("update detent.bulk_actions set last_id = null, success = 0")
    await stage.query("update detent.bulk_actions set carried_until = clock_timestamp() + interval '10 seconds'")
    assert not await stage.carry_on()
    await stage.query("update detent.bulk_actions set carried_until = clock_timestamp()")
    assert counts(await carried_out(stage, asked)) == (BulkStatus.COMPLETED, 4, 4, 0)
    assert await stage.count("runs") == (8 if kind is BulkKind.REPLAY else 0)
    assert await stage.count("history") == (0 if kind is BulkKind.REPLAY else len(old))


async def test_a_replay_that_is_over_is_not_made_again(stage: Stage, worker: Worker) -> None:
    await worker.succeed(await stage.leased(worker))
    asked = replay(RunSelection(statuses=(COMPLETED,)))
    await stage.engine.create_bulk_action(asked)
    await stage.carry_on()
    await worker.succeed(await worker.lease_one())
    await stage.query("update detent.bulk_actions set last_id = null, success = 0")
    await carried_out(stage, asked)
    assert await worker.lease() == []


async def test_an_action_asked_for_twice_is_one(stage: Stage, worker: Worker) -> None:
    await many(stage, 2)
    asked = cancel(RunSelection(task_ids=("work",)))
    assert await stage.engine.create_bulk_action(asked) == await stage.engine.create_bulk_action(asked)
    assert await stage.count("bulk_actions") == 1


async def test_two_actions_are_carried_out_side_by_side(stage: Stage, worker: Worker, dsn: str) -> None:
    """One reserved by another process holds up no other."""
    await many(stage, 2, tags=("a",))
    await many(stage, 2, tags=("b",))
    first, second = cancel(RunSelection(tags=("a",))), cancel(RunSelection(tags=("b",)))
    await stage.engine.create_bulk_action(first)
    await stage.query("update detent.bulk_actions set carried_until = clock_timestamp() + interval '10 seconds'")
    assert counts(await carried_out(stage, second)) == (BulkStatus.COMPLETED, 2, 2, 0)


async def test_actions_are_listed_newest_first(stage: Stage) -> None:
    made = [(await stage.engine.create_bulk_action(cancel(RunSelection(tags=(tag,))))).id for tag in "abc"]
    page = await stage.engine.list_bulk_actions(limit=2)
    assert [record.id for record in page] == [made[2], made[1]]
    assert [record.id for record in await stage.engine.list_bulk_actions(before=page[-1].id)] == [made[0]]


async def test_another_environment_sees_and_touches_nothing(stage: Stage, worker: Worker, dsn: str) -> None:
    run_id = await stage.trigger()
    elsewhere = connect(dsn, environment="prod")
    asked = cancel((run_id,))
    await elsewhere.create_bulk_action(asked)
    assert await stage.engine.retrieve_bulk_actions([asked.bulk_id]) == [None]
    while await stage.carry_on():
        pass
    assert await stage.status(run_id) is QUEUED
    await elsewhere.close()


@pytest.mark.parametrize("nothing", [RunSelection(), ()])
def test_an_action_about_no_runs_in_particular_is_refused(nothing: RunSelection | tuple[RunId, ...]) -> None:
    with pytest.raises(ValueError, match="say which it is about"):
        cancel(nothing)


def test_the_id_of_a_replay_follows_from_the_action_and_the_run() -> None:
    action, run_id = ids.new_bulk_id(), ids.new_run_id()
    made = ids.replayed_run_id(action, run_id)
    assert made == ids.replayed_run_id(action, run_id)
    assert made != ids.replayed_run_id(ids.new_bulk_id(), run_id)
    assert made != ids.replayed_run_id(action, ids.new_run_id())
    assert ids.created_at(ids.decode("run", made)) == ids.created_at(ids.decode("bulk", action))
    assert datetime.now(UTC) - ids.created_at(ids.decode("run", made)) < timedelta(hours=1)
