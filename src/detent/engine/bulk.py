"""Bulk actions: begun by anybody, carried out part by part by whoever ticks.

A cancel acts and notes it in one transaction. A replay takes two: so the id of a new run follows from the action and the old
run, and a part that is carried out again, after a process died with it, makes nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import cast
from uuid import UUID

from detent.engine import runs, selections
from detent.engine.attempts import public
from detent.engine.db import Db, Row
from detent.engine.events import announce
from detent.engine.place import Place
from detent.protocol import ids, run_error
from detent.protocol.bulk import BulkKind, BulkRecord, BulkRequest, BulkStatus
from detent.protocol.ids import BulkId, RunId
from detent.protocol.run_error import ErrorCode
from detent.protocol.runs import ReplayRequest
from detent.protocol.selection import RunSelection
from detent.protocol.triggering import Triggered

RESERVED_SECONDS = 10.0
_MOST_CANCELLED = 500
_MOST_REPLAYED = 100
"""Runs in one part; of a replay fewer, for their payloads pass through this process."""


async def create_bulk_action(place: Place, request: BulkRequest) -> BulkRecord:
    await place.db.call(
        "create_bulk_action",
        {
            "environment": place.environment,
            "action": ids.decode("bulk", request.bulk_id),
            "request": json.dumps(_fields(request)),
        },
    )
    (record,) = await retrieve_bulk_actions(place, [request.bulk_id])
    assert record is not None
    return record


async def abort_bulk_action(place: Place, bulk_id: BulkId) -> None:
    await place.db.call(
        "abort_bulk_action", {"environment": place.environment, "action": ids.decode("bulk", bulk_id)}
    )


async def retrieve_bulk_actions(place: Place, bulk_ids: Sequence[BulkId]) -> list[BulkRecord | None]:
    uuids = [ids.decode("bulk", bulk_id) for bulk_id in bulk_ids]
    found = {record.id: record for record in await _find(place, wanted=uuids, limit=len(uuids))}
    return [found.get(bulk_id) for bulk_id in bulk_ids]


async def list_bulk_actions(place: Place, before: BulkId | None, limit: int) -> list[BulkRecord]:
    return await _find(place, before=None if before is None else ids.decode("bulk", before), limit=limit)


async def carry_on(db: Db, place_of: Callable[[str], Awaitable[Place]]) -> bool:
    """Carry out a part of the oldest action that nobody is at; False when there is none."""
    reserved = await db.call("reserve_bulk_action", {"seconds": RESERVED_SECONDS})
    if not reserved:
        return False
    ((action, slug, kind, reason, last_id),) = reserved
    place = await place_of(str(slug))
    if kind == BulkKind.CANCEL:
        await _cancel_some(place, cast("UUID", action), str(reason))
    else:
        await _replay_some(place, cast("UUID", action), last_id)
    return True


async def _cancel_some(place: Place, action: UUID, reason: str) -> None:
    error = run_error.to_json(run_error.internal(ErrorCode.CANCELLED, reason))
    params = {"action": action, "most": _MOST_CANCELLED, "error": error}
    announce(place.notifier, place.environment, await place.db.call("carry_bulk_cancel", params))


async def _replay_some(place: Place, action: UUID, last_id: object) -> None:
    rows = await place.db.call("find_bulk_runs", {"action": action, "most": _MOST_REPLAYED})
    if not rows:
        await place.db.call("complete_bulk_action", {"action": action, "from": last_id})
        return
    bulk_id = BulkId(public("bulk", action))
    requests = [_replay(bulk_id, RunId(public("run", row[0]))) for row in rows]
    # As a repeat: another process may have made them before, and some may even be over.
    answers = await runs.replay_runs(place, requests, is_repeat=True)
    made = [ids.decode("run", answer.run_id) for answer in answers if isinstance(answer, Triggered)]
    params = {"action": action, "from": last_id, "to": rows[-1][0], "acted": made, "failure": len(answers) - len(made)}
    await place.db.call("advance_bulk_action", params)


def _replay(bulk_id: BulkId, run_id: RunId) -> ReplayRequest:
    return ReplayRequest(run_id=ids.replayed_run_id(bulk_id, run_id), replay_of=run_id)


async def _find(
    place: Place, *, wanted: Sequence[UUID] | None = None, before: UUID | None = None, limit: int
) -> list[BulkRecord]:
    params = {
        "environment": place.environment,
        "ids": None if wanted is None else list(wanted),
        "before": before,
        "limit": limit,
    }
    return [_record(row) for row in await place.db.call("find_bulk_actions", params)]


def _fields(request: BulkRequest) -> dict[str, object]:
    fields: dict[str, object] = {"kind": request.kind.value, "name": request.name, "reason": request.reason}
    match request.runs:
        case RunSelection() as selection:
            return fields | {"selection": selections.to_fields(selection)}
        case named:
            return fields | {"run_ids": sorted({ids.to_hex("run", run_id) for run_id in named})}


def _record(row: Row) -> BulkRecord:
    action, kind, name, status, total, success, failure, created_at, completed_at = row
    return BulkRecord(
        id=BulkId(public("bulk", action)),
        kind=BulkKind(str(kind)),
        name=cast("str | None", name),
        status=BulkStatus(str(status)),
        total=cast("int", total),
        success=cast("int", success),
        failure=cast("int", failure),
        created_at=cast("datetime", created_at),
        completed_at=cast("datetime | None", completed_at),
    )
