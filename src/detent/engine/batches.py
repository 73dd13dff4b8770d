"""Batches: made, given piece by piece, aborted, read. The rules of sealing are in `migrations/0005_batches.sql`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import cast
from uuid import UUID

from detent.engine.attempts import public
from detent.engine.db import Row
from detent.engine.events import announce
from detent.engine.outcomes import child_result
from detent.engine.place import Place
from detent.engine.trigger import Fields, ensure_lanes, fields_of, preferred_by, tell
from detent.protocol import ids, run_error
from detent.protocol.batches import BatchChunk, BatchCreated, BatchCreation, BatchItemError, BatchRecord, ChunkTaken
from detent.protocol.codec import PAYLOAD_LIMIT
from detent.protocol.fence import Stale
from detent.protocol.ids import BatchId, RunId
from detent.protocol.items import ItemIds
from detent.protocol.operations import Origin
from detent.protocol.refusal import Refused
from detent.protocol.run_error import ErrorCode
from detent.protocol.runs import RunOutcome
from detent.protocol.status import BatchStatus, RunStatus
from detent.protocol.triggering import Triggered, TriggerRequest
from detent.protocol.waits import Pending, Suspended, WaitResult

FINGERPRINT = "batch"
MOST_ERRORS = 100
_LAST_INDEX = 2**31 - 1

_ABORTED = Refused(status=409, code="batch_aborted", message="the batch was aborted; make another")
_STANDS: dict[str, Pending | Suspended] = {"suspended": Suspended(), "pending": Pending()}


async def create_batch(place: Place, creation: BatchCreation) -> BatchCreated | Stale:
    key = creation.key
    (row,) = await place.db.call(
        "create_batch",
        {
            "environment": place.environment,
            "batch": ids.decode("batch", creation.batch_id),
            "total": creation.count,
            "key": key.key if key else None,
            "user_key": key.user_key if key else None,
            "key_ttl": key.ttl.total_seconds() if key else None,
        }
        | _place_of(creation.origin),
    )
    what, holder, expected, is_sealed, opens = row
    if what == "stale" and creation.origin is not None:
        return Stale(run_id=creation.origin.holder.run_id)
    if opens:
        place.notifier.notify(place.environment, ready=1)
    batch_id = BatchId(public("batch", holder))
    return BatchCreated(
        batch_id=batch_id,
        count=cast("int | None", expected),
        is_cached=batch_id != creation.batch_id,
        is_sealed=bool(is_sealed),
        wait=_STANDS.get(str(what)),
    )


async def trigger_batch(place: Place, chunk: BatchChunk) -> ChunkTaken | Stale | Refused:
    """Take a chunk of a batch; an item that cannot be triggered becomes a run that has failed."""
    requests, preferred = [request for _, request in chunk.items], preferred_by(chunk.origin)
    refusals = _too_large(requests) | await place.tasks.check(requests, [preferred] if preferred else ())
    good = [request for i, request in enumerate(requests) if i not in refusals]
    await ensure_lanes(place, [(request, preferred) for request in good])
    errors = {i: run_error.to_json(_item_error(refusal)) for i, refusal in sorted(refusals.items())}
    rows = await place.db.call(
        "trigger_batch",
        {
            "environment": place.environment,
            "batch": ids.decode("batch", chunk.batch_id),
            "requests": json.dumps([_item_fields(place, i, chunk) for i in range(len(requests))]),
            "has_keys": any(request.idempotency for request in requests),
            "indexes": [index for index, _ in chunk.items],
            "refused": list(errors),
            "errors": list(errors.values()),
            "total": chunk.total,
        }
        | _place_of(chunk.origin),
    )
    tell(place, good)
    return _chunk_taken(place, chunk, rows)


async def abort_batch(place: Place, batch_id: BatchId, reason: str) -> None:
    params = {"environment": place.environment, "batch": ids.decode("batch", batch_id), "reason": reason}
    announce(place.notifier, place.environment, await place.db.call("abort_batch", params))


async def retrieve_batches(place: Place, batch_ids: Sequence[BatchId]) -> list[BatchRecord | None]:
    uuids = [ids.decode("batch", batch_id) for batch_id in batch_ids]
    params: Fields = {
        "ids": uuids,
        "firsts": [ids.decode("run", ids.item_run_id(batch_id, 0)) for batch_id in batch_ids],
        "lasts": [ids.decode("run", ids.item_run_id(batch_id, _LAST_INDEX)) for batch_id in batch_ids],
    }
    rows = await place.db.call("find_batches", {"environment": place.environment} | params)
    errors: list[Row] = []
    if any(row[2] for row in rows):
        errors = await place.db.call(
            "find_refused_items", params | {"code": ErrorCode.BATCH_ITEM, "limit": MOST_ERRORS}
        )
    found = {row[0]: _record(row, [error for error in errors if error[0] == row[0]]) for row in rows}
    return [found.get(value) for value in uuids]


async def read_batch_results(place: Place, batch_id: BatchId, after: int, limit: int) -> list[RunOutcome]:
    rows = await place.db.call(
        "read_batch_results", {"batch": ids.decode("batch", batch_id), "after": after, "limit": limit}
    )
    return [
        child_result(cast("UUID", run_id), task_id, status, output, error)
        for _, run_id, task_id, status, output, error in rows
    ]


def status_of(*, is_sealed: bool, is_aborted: bool, total: int, refused: int, live: int) -> BatchStatus:
    """Return how a batch stands, by what was given and by how many of its runs are not over.

    >>> status_of(is_sealed=True, is_aborted=False, total=3, refused=0, live=1).value
    'PROCESSING'
    """
    if is_aborted or (is_sealed and 0 < total == refused):
        return BatchStatus.ABORTED
    if not is_sealed:
        return BatchStatus.PENDING
    if not live:
        return BatchStatus.COMPLETED
    return BatchStatus.PARTIAL_FAILED if refused else BatchStatus.PROCESSING


def _place_of(origin: Origin | None) -> dict[str, object]:
    """Return what the functions read of the place in a run's code that a batch comes from."""
    return {
        "parent": ids.decode("run", origin.holder.run_id) if origin else None,
        "fence": origin.holder.fence if origin else None,
        "operation": origin.operation if origin else None,
        "fingerprint": FINGERPRINT if origin else None,
        "waits": origin.wait if origin else None,
        "suspends": origin.suspends if origin else None,
        "answers": origin.stamp.answers if origin else None,
        "seen": list(origin.stamp.seen) if origin and origin.stamp.seen is not None else None,
    }


def _too_large(requests: Sequence[TriggerRequest]) -> dict[int, Refused]:
    # A character is at least a byte: most texts need not be encoded to be known as small.
    sizes = ((i, _size(request.payload or "")) for i, request in enumerate(requests))
    return {
        i: Refused(
            status=413,
            code="payload_too_large",
            message=f"the payload is {size:,} bytes of JSON, over the limit of {PAYLOAD_LIMIT:,}",
        )
        for i, size in sizes
        if size > PAYLOAD_LIMIT
    }


def _size(text: str) -> int:
    return len(text) if len(text) * 4 <= PAYLOAD_LIMIT else len(text.encode("utf-8", "replace"))


def _item_error(refusal: Refused) -> run_error.RunError:
    return run_error.internal(ErrorCode.BATCH_ITEM, "; ".join([refusal.message, *refusal.details]))


def _item_fields(place: Place, i: int, chunk: BatchChunk) -> Fields:
    index, request = chunk.items[i]
    fields = fields_of(place, i, request, preferred_by(chunk.origin))
    fields["batch"] = ids.to_hex("batch", chunk.batch_id)
    fields["batch_index"] = index
    if _size(request.payload or "") > PAYLOAD_LIMIT:
        del fields["payload"]
    if chunk.origin is not None:
        fields["parent"] = ids.to_hex("run", chunk.origin.holder.run_id)
        fields["awaited"] = chunk.origin.wait
    return fields


def _chunk_taken(place: Place, chunk: BatchChunk, rows: Sequence[Row]) -> ChunkTaken | Stale | Refused:
    made = [Triggered(run_id=request.run_id) for _, request in chunk.items]
    for what, i, run_id, session_id, _ in rows[:-1]:
        if what == "cached":
            made[cast("int", i)] = Triggered(run_id=RunId(public("run", run_id)), is_cached=True)
        else:
            announce(place.notifier, place.environment, [(what, run_id, "QUEUED", session_id, False)])
    what, _, _, _, facts = rows[-1]
    if what == "stale" and chunk.origin is not None:
        return Stale(run_id=chunk.origin.holder.run_id)
    if what != "taken":
        return _refusal(str(what), chunk, cast("dict[str, object] | None", facts))
    return _taken(chunk, tuple(made), cast("dict[str, object]", facts))


def _refusal(what: str, chunk: BatchChunk, facts: dict[str, object] | None) -> Refused:
    match what:
        case "foreign":
            message = f"there is no batch {chunk.batch_id} in this environment"
            return Refused(status=404, code="batch_not_found", message=message)
        case "beyond":
            message = (
                f"batch {chunk.batch_id} has {facts and facts['expected']} items, of indexes from 0 on; "
                "nothing of this call was taken: give it only those"
            )
            return Refused(status=422, code="batch_index", message=message)
        case _:
            return _ABORTED


def _taken(chunk: BatchChunk, made: tuple[Triggered, ...], facts: dict[str, object]) -> ChunkTaken:
    accepted = cast("int", facts["accepted"])
    return ChunkTaken(
        items=made,
        accepted=accepted,
        deduplicated=0 if facts["was_sealed"] else len(made) - accepted,
        enqueued=cast("int", facts["enqueued"]),
        expected=cast("int | None", facts["expected"]),
        is_sealed=bool(facts["sealed"]),
        wait=_wait(chunk.origin, facts),
    )


def _wait(origin: Origin | None, facts: dict[str, object]) -> WaitResult | Pending | Suspended | None:
    if origin is None or facts["wait"] is None:
        return None
    if facts["wait"] != "completed":
        return _STANDS[str(facts["wait"])]
    failure = facts["failure"]
    error = run_error.internal(ErrorCode.BATCH_ABORTED, str(failure)) if failure is not None else None
    return WaitResult(operation=origin.operation, error=error)


def _record(row: Row, errors: Sequence[Row]) -> BatchRecord:
    (value, total, refused, idempotency_key, sealed_at, aborted, created_at, froms, tos, cached, counts,
     finished_at) = row  # fmt: skip
    batch_id = BatchId(public("batch", value))
    spans = [range(*span) for span in zip(cast("list[int]", froms), cast("list[int]", tos), strict=True)]
    older = {int(i): RunId(public("run", UUID(run))) for i, run in cast("dict[str, str]", cached or {}).items()}
    run_ids = ItemIds(batch_id, spans, older)
    by_status = {RunStatus(name): number for name, number in cast("dict[str, int]", counts or {}).items()}
    live = sum(number for status, number in by_status.items() if not status.is_final)
    run_count = cast("int", total) if total is not None else len(run_ids)
    status = status_of(
        is_sealed=sealed_at is not None,
        is_aborted=aborted is not None,
        total=run_count,
        refused=cast("int", refused),
        live=live,
    )
    is_over = sealed_at is not None and not live
    return BatchRecord(
        id=batch_id,
        status=status,
        run_count=run_count,
        run_ids=run_ids,
        succeeded=by_status.get(RunStatus.COMPLETED, 0),
        failed=sum(number for each, number in by_status.items() if each.is_failed),
        cancelled=by_status.get(RunStatus.CANCELED, 0),
        refused=cast("int", refused),
        errors=tuple(map(_item_failure, errors)),
        reason=str(aborted or ""),
        idempotency_key=cast("str | None", idempotency_key),
        created_at=cast("datetime", created_at),
        sealed_at=cast("datetime | None", sealed_at),
        completed_at=cast("datetime | None", finished_at or sealed_at) if is_over else None,
    )


def _item_failure(row: Row) -> BatchItemError:
    _, index, run_id, task_id, error = row
    return BatchItemError(
        index=cast("int", index),
        task_id=str(task_id),
        run_id=RunId(public("run", run_id)),
        error=run_error.from_json(str(error)),
    )
