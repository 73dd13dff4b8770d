"""Waiting, and what a replay reads: waits for a moment, the journal, the results of a batch.

A run that waits is WAITING with `pending_waits` > 0 and holds no slot. The waiter locks the waitpoints it needs and makes an
edge for each that is pending; the completer marks waitpoints, then in a new snapshot of the same transaction reads the edges
and counts down; at zero the run is ready at its original position. Either the waiter sees the completion, or the completer
sees the edge.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast
from uuid import UUID

from detent.engine import lifecycle
from detent.engine.attempts import public
from detent.engine.db import Row
from detent.engine.outcomes import child_result, wait_result
from detent.engine.place import Place
from detent.protocol import ids
from detent.protocol.ids import BatchId
from detent.protocol.models import (
    Holder,
    JournalEntry,
    OperationKind,
    RunOutcome,
    Stale,
    Suspended,
    TimeWait,
    WaitResult,
)

_REF_PREFIX = {
    OperationKind.TRIGGER: "run",
    OperationKind.CHILD: "run",
    OperationKind.BATCH: "batch",
    OperationKind.BATCH_WAIT: "batch",
    OperationKind.TIME: "waitpoint",
}
_WAITPOINT_KIND = {OperationKind.CHILD: "run", OperationKind.BATCH_WAIT: "batch", OperationKind.TIME: "time"}


async def wait_for_time(place: Place, waits: Sequence[TimeWait]) -> list[WaitResult | Suspended | Stale]:
    requests = [_wait_fields(i, wait) for i, wait in enumerate(waits)]
    for wait in waits:
        place.alarm.set(wait.until)
    rows = await place.db.call("wait_for_time", {"environment": place.environment, "requests": json.dumps(requests)})
    answers: list[WaitResult | Suspended | Stale] = [Stale(run_id=wait.origin.holder.run_id) for wait in waits]
    for i, is_suspended in rows:
        place_of = cast("int", i)
        answers[place_of] = Suspended() if is_suspended else WaitResult(operation=waits[place_of].origin.operation)
    return answers


async def read_journal(place: Place, holder: Holder, after: int, limit: int) -> list[JournalEntry] | Stale:
    run = ids.decode("run", holder.run_id)
    held = await place.db.call("check_holder", {"run": run, "fence": holder.fence})
    if not held:
        return Stale(run_id=holder.run_id)
    rows = await place.db.call("read_journal", {"run": run, "attempt": held[0][0], "after": after, "limit": limit})
    return [_entry(row) for row in rows]


async def read_batch_results(place: Place, batch_id: BatchId, after: int, limit: int) -> list[RunOutcome]:
    rows = await place.db.call(
        "read_batch_results", {"batch": ids.decode("batch", batch_id), "after": after, "limit": limit}
    )
    return [
        child_result(cast("UUID", run_id), task_id, status, output, error)
        for _, run_id, task_id, status, output, error in rows
    ]


def _wait_fields(i: int, wait: TimeWait) -> dict[str, object]:
    holder = wait.origin.holder
    return {
        "i": i,
        "id": ids.to_hex("waitpoint", wait.waitpoint_id),
        "parent": ids.to_hex("run", holder.run_id),
        "fence": holder.fence,
        "operation": wait.origin.operation,
        "delay": lifecycle.seconds(wait.until),
        "due_at": lifecycle.date(wait.until),
    }


def _entry(row: Row) -> JournalEntry:
    operation, kind_text, fingerprint, ref, is_cached, is_done, task_id, status, output, error, is_sealed = row
    kind = OperationKind(str(kind_text))
    result = None
    if is_done and kind in _WAITPOINT_KIND:
        result = wait_result(str(operation), _WAITPOINT_KIND[kind], cast("UUID", ref), task_id, status, output, error)
    return JournalEntry(
        operation=str(operation),
        kind=kind,
        fingerprint=str(fingerprint),
        ref=public(_REF_PREFIX[kind], ref),
        is_cached=bool(is_cached),
        is_sealed=bool(is_sealed) or kind not in (OperationKind.BATCH, OperationKind.BATCH_WAIT),
        result=result,
    )
