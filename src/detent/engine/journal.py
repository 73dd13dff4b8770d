"""What attempts have done so far: appended to by every durable operation, read by a replay."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import cast
from uuid import UUID

from detent.engine.attempts import public
from detent.engine.db import Row
from detent.engine.outcomes import wait_result
from detent.engine.place import Place
from detent.protocol import ids
from detent.protocol.fence import Stale
from detent.protocol.ids import RunId
from detent.protocol.journal import JournalEntry, JournalRead, Recorded, StepRecord
from detent.protocol.operations import OperationKind, Stamp

_REF_PREFIX = {
    OperationKind.TRIGGER: "run",
    OperationKind.CHILD: "run",
    OperationKind.BATCH: "batch",
    OperationKind.BATCH_WAIT: "batch",
    OperationKind.TIME: "waitpoint",
    OperationKind.TOKEN: "waitpoint",
    OperationKind.NEW_TOKEN: "waitpoint",
}
_WAITPOINT_KIND = {
    OperationKind.CHILD: "run",
    OperationKind.BATCH_WAIT: "batch",
    OperationKind.TIME: "time",
    OperationKind.TOKEN: "token",
}


async def record_steps(place: Place, records: Sequence[StepRecord]) -> list[Recorded | Stale]:
    requests = [_step_fields(i, record) for i, record in enumerate(records)]
    rows = await place.db.call("record_steps", {"environment": place.environment, "requests": json.dumps(requests)})
    answers: list[Recorded | Stale] = [Stale(run_id=record.origin.holder.run_id) for record in records]
    for (i,) in rows:
        answers[cast("int", i)] = Recorded()
    return answers


async def read_journals(place: Place, reads: Sequence[JournalRead], limit: int) -> list[list[JournalEntry] | Stale]:
    requests = [
        {"i": i, "id": ids.to_hex("run", read.holder.run_id), "fence": read.holder.fence, "after": read.after}
        for i, read in enumerate(reads)
    ]
    found = await _read(place, requests, limit)
    return [found.get(i, Stale(run_id=read.holder.run_id)) for i, read in enumerate(reads)]


async def read_journal(place: Place, run_id: RunId, after: int, limit: int) -> list[JournalEntry] | None:
    found = await _read(place, [{"i": 0, "id": ids.to_hex("run", run_id), "after": after}], limit)
    return found.get(0)


async def _read(place: Place, requests: Sequence[dict[str, object]], limit: int) -> dict[int, list[JournalEntry]]:
    rows = await place.db.call(
        "read_journals", {"environment": place.environment, "reads": json.dumps(requests), "limit": limit}
    )
    pages: dict[int, list[JournalEntry]] = {}
    for i, operation, *fields in rows:
        page = pages.setdefault(cast("int", i), [])
        if operation is not None:
            page.append(_entry(str(operation), tuple(fields)))
    return pages


def _step_fields(i: int, record: StepRecord) -> dict[str, object]:
    origin = record.origin
    return {
        "i": i,
        "parent": ids.to_hex("run", origin.holder.run_id),
        "fence": origin.holder.fence,
        "operation": origin.operation,
        "fingerprint": record.fingerprint,
        "answers": origin.stamp.answers,
        "seen": origin.stamp.seen,
        "output": record.output,
        "error": record.error,
    }


def _entry(operation: str, row: Row) -> JournalEntry:
    (number, attempt, kind_text, fingerprint, ref, is_cached, answers, seen, recorded_at, step_output, step_error, is_done,
     task_id, status, output, error, is_sealed) = row  # fmt: skip
    kind = OperationKind(str(kind_text))
    result = None
    if is_done and kind in _WAITPOINT_KIND:
        result = wait_result(operation, _WAITPOINT_KIND[kind], cast("UUID", ref), task_id, status, output, error)
    return JournalEntry(
        operation=operation,
        kind=kind,
        fingerprint=str(fingerprint),
        ref=public(_REF_PREFIX[kind], ref) if kind in _REF_PREFIX else "",
        number=cast("int", number),
        attempt=cast("int", attempt),
        stamp=Stamp(answers=cast("int", answers), seen=None if seen is None else tuple(cast("list[str]", seen))),
        recorded_at=cast("datetime", recorded_at),
        is_cached=bool(is_cached),
        is_sealed=bool(is_sealed) or kind not in (OperationKind.BATCH, OperationKind.BATCH_WAIT),
        result=result,
        output=cast("str | None", step_output),
        error=cast("str | None", step_error),
    )
