"""Attempts: leased, started, completed, handed back; and what settling a run tells others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID

from detent.engine import lifecycle
from detent.engine.db import Row
from detent.engine.events import announce
from detent.engine.outcomes import wait_result
from detent.engine.place import Place
from detent.protocol import ids, run_error
from detent.protocol.attempts import AttemptOutcome, Completed
from detent.protocol.execution import Isolation
from detent.protocol.fence import Holder, Stale
from detent.protocol.ids import BatchId, RunId
from detent.protocol.leases import HandBack, Lease, LeaseRequest
from detent.protocol.logs import LogLine, StoredLog
from detent.protocol.waits import WaitResult

MOST_PASSES = 20
FEWEST_LANES = 50
"""A lease looks at so many lanes at once, or at one for each place: then no line is served twice before another is once."""


async def lease(place: Place, request: LeaseRequest) -> list[Lease]:
    leases: list[Lease] = []
    for _ in range(MOST_PASSES):
        taken, is_unfinished = await _lease_once(place, request, leases)
        leases += taken
        if not is_unfinished:
            break
    return leases


async def _lease_once(place: Place, request: LeaseRequest, had: Sequence[Lease]) -> tuple[list[Lease], bool]:
    """Lease what there is room for beside what this request *had* before; say whether there may be more."""
    used = Counter(lease.isolation for lease in had)
    rows = await place.db.call(
        "lease_runs",
        {
            "session": ids.decode("session", request.session_id),
            "fence": request.fence,
            "room": json.dumps({isolation.value: request.room.get(isolation, 0) - used[isolation] for isolation in Isolation}),
            "most_lanes": max(FEWEST_LANES, *request.room.values()),
        },
    )
    taken = [_lease(request.fence, row) for row in rows if row[0] is not None]
    return taken, len(taken) < len(rows)


async def start_attempts(place: Place, holders: Sequence[Holder]) -> None:
    await place.db.call("start_attempts", {"holders": holders_json(holders)})


async def complete_attempts(place: Place, outcomes: Sequence[AttemptOutcome]) -> list[Completed | Stale]:
    transitions = [lifecycle.after_attempt(outcome) for outcome in outcomes]
    rows = await place.db.call("settle_runs", {"outcomes": json.dumps([_outcome_fields(t) for t in transitions])})
    settled = announce(place.notifier, place.environment, rows)
    for transition in transitions:
        place.alarm.set(timedelta() if transition.is_oom else transition.retry)
    return [
        Completed(run_id=t.holder.run_id, status=status) if status else Stale(run_id=t.holder.run_id)
        for t in transitions
        for status in (settled.get(ids.to_hex("run", t.holder.run_id)),)
    ]


async def end_cancelled(place: Place, holders: Sequence[Holder]) -> None:
    ((is_open,),) = await place.db.call("end_cancelled", {"holders": holders_json(holders)})
    if is_open:
        place.notifier.notify(place.environment, ready=1)


async def hand_back(place: Place, runs: Sequence[HandBack]) -> None:
    rows = await place.db.call("hand_back", {"runs": json.dumps([_hand_back_fields(run) for run in runs])})
    announce(place.notifier, place.environment, rows)


async def append_logs(place: Place, lines: Sequence[LogLine]) -> None:
    await place.db.call(
        "append_logs",
        {"environment": place.environment, "lines": json.dumps([_line_fields(line) for line in lines])},
    )


async def read_logs(place: Place, run_id: RunId, after: int, limit: int) -> list[StoredLog]:
    params = {"environment": place.environment, "run": ids.decode("run", run_id), "after": after + 1, "limit": limit}
    rows = await place.db.call("read_logs", params)
    return [
        StoredLog(
            attempt=cast("int", attempt),
            at=cast("datetime", at),
            level=str(level),
            message=str(message),
            fields=cast("str | None", fields),
        )
        for attempt, at, level, message, fields in rows
    ]


def holders_json(holders: Sequence[Holder]) -> str:
    return json.dumps([{"id": ids.to_hex("run", holder.run_id), "fence": holder.fence} for holder in holders])


def _hand_back_fields(run: HandBack) -> dict[str, object]:
    return {"id": ids.to_hex("run", run.holder.run_id), "fence": run.holder.fence, "begun": run.has_begun}


def _outcome_fields(transition: lifecycle.Transition) -> dict[str, object]:
    fields: dict[str, object] = {
        "id": ids.to_hex("run", transition.holder.run_id),
        "fence": transition.holder.fence,
        "status": transition.status.value,
    }
    if transition.output is not None:
        fields["output"] = transition.output
    if transition.error is not None:
        fields["error"] = transition.error
    if transition.retry is not None:
        fields["retry_in"], fields["retry_at"] = lifecycle.seconds(transition.retry), lifecycle.date(transition.retry)
    if transition.has_hooks is not None:
        fields["hooks"] = transition.has_hooks
    if transition.is_oom:
        fields["oom"] = True
    if transition.lingers:
        fields["lingers"] = True
    return fields


def _line_fields(line: LogLine) -> dict[str, object]:
    return {
        "id": ids.to_hex("run", line.holder.run_id),
        "fence": line.holder.fence,
        "attempt": line.attempt,
        "place": line.place,
        "number": line.number,
        "at": line.at.isoformat(),
        "level": line.level,
        "message": run_error.clean(line.message),
        "fields": run_error.clean(line.fields) if line.fields is not None else None,
    }


def _lease(fence: int, row: Row) -> Lease:
    (run_id, attempt, task_id, isolation, is_resumed, has_journal, results, created_at, started_at, queue, concurrency_key,
     priority, tags, payload, metadata, metadata_applied, max_attempts, max_duration, idempotency_key, idempotency_scope,
     version, parent_id, root_id, batch_id, replay_of, is_test, machine, active, attempt_active) = row  # fmt: skip
    return Lease(
        run_id=RunId(ids.encode("run", cast("UUID", run_id))),
        fence=fence,
        attempt=cast("int", attempt),
        task_id=str(task_id),
        isolation=Isolation(str(isolation)),
        payload=cast("str | None", payload),
        is_resumed=bool(is_resumed),
        has_journal=bool(has_journal),
        results=results_of(cast("list[list[object]] | None", results)),
        created_at=cast("datetime", created_at),
        started_at=cast("datetime", started_at),
        queue=str(queue),
        concurrency_key=cast("str | None", concurrency_key),
        priority=cast("float", priority),
        tags=tuple(cast("list[str]", tags)),
        metadata=cast("str | None", metadata),
        metadata_applied=cast("str | None", metadata_applied),
        max_attempts=cast("int | None", max_attempts),
        max_duration=cast("float | None", max_duration),
        idempotency_key=cast("str | None", idempotency_key),
        idempotency_key_scope=cast("str | None", idempotency_scope),
        version=str(version),
        parent_run_id=RunId(public("run", parent_id)) if parent_id else None,
        root_run_id=RunId(public("run", root_id)) if root_id else None,
        batch_id=BatchId(public("batch", batch_id)) if batch_id else None,
        replay_of=RunId(public("run", replay_of)) if replay_of else None,
        is_test=bool(is_test),
        machine=cast("str | None", machine),
        active=cast("float", active),
        attempt_active=cast("float", attempt_active),
    )


def public(prefix: str, value: object) -> str:
    return ids.encode(prefix, cast("UUID", value))


def results_of(found: list[list[object]] | None) -> tuple[WaitResult, ...]:
    """Return what was waited for, as the database gathered it in JSON."""
    return tuple(
        wait_result(str(operation), str(kind), UUID(str(waitpoint)), task_id, status, output, error)
        for operation, kind, waitpoint, task_id, status, output, error in found or ()
    )
