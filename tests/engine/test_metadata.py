"""Metadata of runs, changed by themselves and by their children."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from detent.protocol import ids
from detent.protocol.children import ChildTriggered
from detent.protocol.codec import JsonValue
from detent.protocol.fence import Stale
from detent.protocol.ids import RunId
from detent.protocol.leases import Lease
from detent.protocol.limits import METADATA_LIMIT
from detent.protocol.metadata import (
    Document,
    MetadataKind,
    MetadataOperation,
    MetadataTarget,
    MetadataUpdate,
    MetadataUpdated,
    PlacedOperation,
    RunAnnotated,
    RunAnnotation,
)
from tests.engine.stage import Stage, Worker, holder
from tests.protocol.test_metadata import CASES, operation_of

OWN, PARENT, ROOT = MetadataTarget.OWN, MetadataTarget.PARENT, MetadataTarget.ROOT


def placed(
    number: int, key: str, value: JsonValue = 1, *, kind: MetadataKind = MetadataKind.INCREMENT,
    target: MetadataTarget = OWN, place: str = "main/",
) -> PlacedOperation:  # fmt: skip
    operation = MetadataOperation(kind=kind, target=target, path=(key,), value=value)
    return PlacedOperation(place=place, number=number, operation=operation)


async def update(stage: Stage, lease: Lease, *operations: PlacedOperation) -> MetadataUpdated | Stale:
    (answer,) = await stage.engine.update_metadata([MetadataUpdate(holder=holder(lease), operations=operations)])
    return answer


async def metadata_of(stage: Stage, run_id: RunId) -> Document:
    found = json.loads((await stage.run(run_id)).metadata or "{}")
    assert isinstance(found, dict)
    return found


async def child_of(stage: Stage, worker: Worker, parent: Lease, operation: str = "main/0") -> Lease:
    made = await worker.call(parent, operation, wait=False)
    assert isinstance(made, ChildTriggered)
    return await worker.lease_one()


async def test_the_database_does_what_the_protocol_says(stage: Stage) -> None:
    for before, kind, key, value, after in CASES:
        operation = operation_of(kind, key, value)
        given = [{"kind": kind, "path": operation.path, "value": value}]
        ((found,),) = await stage.query(
            "select detent.apply_metadata(%s::jsonb, %s::jsonb)", json.dumps(before), json.dumps(given)
        )
        assert found == after, (before, kind, key, value)


async def test_updates_are_applied_in_order_and_the_document_is_answered(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker, metadata='{"a":1}')
    answer = await update(
        stage, lease, placed(0, "a", 5, kind=MetadataKind.SET), placed(1, "a"), placed(2, "b", "x", kind=MetadataKind.APPEND)
    )
    assert isinstance(answer, MetadataUpdated)
    assert json.loads(answer.document) == await metadata_of(stage, lease.run_id) == {"a": 6, "b": ["x"]}


async def test_an_update_that_is_sent_twice_counts_once(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    for _ in range(2):
        await update(stage, lease, placed(0, "a"), placed(3, "a"), placed(0, "a", place="main/child~0/"))
    assert await metadata_of(stage, lease.run_id) == {"a": 3}


async def test_a_stale_update_changes_nothing(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    assert await update(stage, replace(lease, fence=lease.fence + 1), placed(0, "a")) == Stale(run_id=lease.run_id)
    assert await metadata_of(stage, lease.run_id) == {}


async def test_who_starts_an_attempt_again_is_told_what_was_applied(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await update(stage, lease, placed(7, "a"))
    await worker.hand_back(lease)
    again = await worker.lease_one()
    assert json.loads(again.metadata_applied or "") == {"attempt": 1, "places": {"main/": 7}}
    await update(stage, again, placed(7, "a"), placed(8, "a"))
    assert await metadata_of(stage, lease.run_id) == {"a": 2}


async def test_a_new_attempt_counts_from_the_start(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await update(stage, lease, placed(0, "a"))
    await worker.fail(lease, retry_in=timedelta())
    await stage.a_moment_passes()
    again = await worker.lease_one()
    assert (again.attempt, again.metadata) == (2, '{"a": 1}')
    await update(stage, again, placed(0, "a"))
    assert await metadata_of(stage, lease.run_id) == {"a": 2}


async def test_children_change_their_parent_and_root(stage: Stage, worker: Worker) -> None:
    root = await stage.leased(worker)
    middle = await child_of(stage, worker, root)
    leaf = await child_of(stage, worker, middle)
    await update(stage, leaf, placed(0, "p", target=PARENT), placed(1, "r", target=ROOT), placed(2, "o"))
    assert await metadata_of(stage, leaf.run_id) == {"o": 1}
    assert await metadata_of(stage, middle.run_id) == {"p": 1}
    assert await metadata_of(stage, root.run_id) == {"r": 1}


async def test_a_run_that_nobody_triggered_is_its_own_parent_and_root(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await update(stage, lease, placed(0, "a", target=PARENT), placed(1, "a"), placed(2, "a", target=ROOT))
    assert await metadata_of(stage, lease.run_id) == {"a": 3}


async def test_increments_of_many_children_at_once_add_up(stage: Stage, worker: Worker) -> None:
    root = await stage.leased(worker)
    for i in range(8):
        await worker.call(root, f"main/{i}", wait=False)
    children = await worker.lease()
    updates = [MetadataUpdate(holder=holder(c), operations=(placed(0, "n", target=PARENT),)) for c in children]
    pairs = zip(updates, reversed(updates), strict=True)
    await asyncio.gather(*(stage.engine.update_metadata(pair) for pair in pairs))
    assert await metadata_of(stage, root.run_id) == {"n": 8}


async def test_a_finished_run_keeps_its_metadata_and_takes_updates_of_children_for_an_hour(
    stage: Stage, worker: Worker
) -> None:
    root = await stage.leased(worker)
    child = await child_of(stage, worker, root)
    await update(stage, root, placed(0, "a"))
    await worker.succeed(root)
    await update(stage, child, placed(0, "a", target=ROOT))
    assert await metadata_of(stage, root.run_id) == {"a": 2}
    await stage.query("update testing.clock set shift = shift + interval '61 minutes'")
    await update(stage, child, placed(1, "a", target=ROOT))
    assert await metadata_of(stage, root.run_id) == {"a": 2}


async def test_what_would_make_a_document_too_large_is_dropped_and_said(stage: Stage, worker: Worker) -> None:
    root = await stage.leased(worker)
    child = await child_of(stage, worker, root)
    text = "x" * (METADATA_LIMIT - 100)
    for number in range(3):
        answer = await update(stage, child, placed(number, f"k{number}", text, kind=MetadataKind.SET, target=PARENT))
    assert isinstance(answer, MetadataUpdated)
    assert answer.is_refused
    assert list(await metadata_of(stage, root.run_id)) == ["k0", "k1"]


@pytest.mark.parametrize("status", ["waiting", "executing"])
async def test_updates_are_taken_from_a_run_that_waits_in_memory(stage: Stage, worker: Worker, status: str) -> None:
    lease = await stage.leased(worker)
    if status == "waiting":
        await worker.sleep(lease)
    await update(stage, lease, placed(0, "a"))
    assert await metadata_of(stage, lease.run_id) == {"a": 1}


def annotation(run_id: RunId, key: str, value: JsonValue) -> RunAnnotation:
    put = MetadataOperation(kind=MetadataKind.SET, path=(key,), value=value)
    return RunAnnotation(run_id=run_id, operations=(put,))


@pytest.mark.parametrize("is_over", [False, True])
async def test_anybody_puts_values_into_the_metadata_of_a_run_live_or_over(
    stage: Stage, worker: Worker, is_over: bool
) -> None:
    lease = await stage.leased(worker, metadata='{"a": 1}')
    if is_over:
        await worker.succeed(lease)
    wanted = [annotation(lease.run_id, "b", [2]), annotation(ids.new_run_id(), "b", 1)]
    answer, unknown = await stage.engine.annotate_runs(wanted)
    assert unknown is None
    assert answer is not None
    assert json.loads(answer.document) == json.loads((await stage.run(lease.run_id)).metadata or "") == {"a": 1, "b": [2]}


@pytest.mark.parametrize("is_over", [False, True])
async def test_a_document_that_would_be_too_large_from_outside_is_as_before(
    stage: Stage, worker: Worker, is_over: bool
) -> None:
    lease = await stage.leased(worker, metadata='{"a": 1}')
    if is_over:
        await worker.succeed(lease)
    (answer,) = await stage.engine.annotate_runs([annotation(lease.run_id, "b", "x" * METADATA_LIMIT)])
    assert answer == RunAnnotated(document='{"a": 1}', refused_size=METADATA_LIMIT + len('{"a": 1, "b": ""}'))
    assert (await stage.run(lease.run_id)).metadata == '{"a": 1}'


async def test_what_a_run_and_others_say_of_it_is_all_kept(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await update(stage, lease, placed(0, "n"))
    await stage.engine.annotate_runs([annotation(lease.run_id, "by", "ada")])
    answer = await update(stage, lease, placed(1, "n"))
    assert isinstance(answer, MetadataUpdated)
    assert json.loads(answer.document) == {"n": 2, "by": "ada"}
