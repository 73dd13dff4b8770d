"""What stands in the way of runs, and what nobody sees to. Only reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import cast
from uuid import UUID

from detent.engine import retention, runs
from detent.engine.db import Row
from detent.engine.place import Place
from detent.protocol import ids
from detent.protocol.flow import LimitKind
from detent.protocol.health import ForsakenTask, HealthRecord, LateRun, PausedLimit, UndeclaredLimit, WorkerHealth
from detent.protocol.ids import RunId
from detent.protocol.runs import WaitingReason

LATE_SECONDS = 600.0
OVERDUE_SECONDS = 3 * 3600.0
"""A partition goes within the hour after it is due, unless locks stand in the way."""
_MOST_LATE = 5


async def read_health(place: Place) -> HealthRecord:
    db, here = place.db, {"environment": place.environment}
    late = await db.call("find_late_runs", here | {"seconds": LATE_SECONDS, "most": _MOST_LATE})
    return HealthRecord(
        workers=tuple(map(_worker, await db.call("find_workers", here))),
        forsaken_tasks=tuple(map(_forsaken, await db.call("find_tasks_without_worker", here))),
        paused=tuple(map(_paused, await db.call("find_paused", here))),
        undeclared=tuple(map(_undeclared, await db.call("find_undeclared", here))),
        late_runs=await _late_runs(place, late),
        late_count=cast("int", late[0][-1]) if late else 0,
        miscounted=sum(len(cast("list[UUID]", limits)) for _, limits in await db.call("find_miscounted", {})),
        shelves_behind=tuple(str(name) for (name,) in await db.call("find_shelves_behind", here)),
        overdue=tuple(str(name) for (name,) in await db.call("find_overdue_partitions", {"seconds": OVERDUE_SECONDS})),
        retention=await retention.read_retention(db, place.environment),
    )


async def _late_runs(place: Place, rows: Sequence[Row]) -> tuple[LateRun, ...]:
    run_ids = [RunId(ids.encode("run", cast("UUID", row[0]))) for row in rows]
    reasons: Mapping[RunId, WaitingReason | None] = {
        record.id: record.waiting_reason for record in await runs.retrieve_runs(place, run_ids) if record is not None
    }
    return tuple(
        LateRun(run_id=run_id, task_id=str(task_id), queued_at=cast("datetime", queued_at), reason=reasons.get(run_id))
        for run_id, (_, task_id, queued_at, _) in zip(run_ids, rows, strict=True)
    )


def _worker(row: Row) -> WorkerHealth:
    name, version, runners, silence, is_live = row
    return WorkerHealth(
        name=str(name),
        version=str(version),
        runners=cast("int", runners),
        silence=cast("float", silence),
        is_live=bool(is_live),
    )


def _forsaken(row: Row) -> ForsakenTask:
    task_id, count = row
    return ForsakenTask(task_id=str(task_id), runs=cast("int", count))


def _paused(row: Row) -> PausedLimit:
    kind, name, paused_at = row
    return PausedLimit(kind=LimitKind(str(kind)), name=str(name), paused_at=cast("datetime", paused_at))


def _undeclared(row: Row) -> UndeclaredLimit:
    kind, name, count = row
    return UndeclaredLimit(kind=LimitKind(str(kind)), name=str(name), runs=cast("int", count))
