"""Runs as they are read, cancelled and replayed by anybody."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import cast
from uuid import UUID

from detent.engine import lifecycle, selections, trigger
from detent.engine.attempts import public
from detent.engine.db import Row
from detent.engine.events import announce
from detent.engine.outcomes import child_result
from detent.engine.place import Place
from detent.engine.reasons import Facts, Obstacle, Wait, why_waiting
from detent.protocol import ids, run_error
from detent.protocol.flow import LimitKind
from detent.protocol.ids import BatchId, RunId, ScheduleId
from detent.protocol.refusal import Refused
from detent.protocol.run_error import ErrorCode
from detent.protocol.runs import AttemptRecord, ReplayRequest, Rescheduling, RunOutcome, RunRecord
from detent.protocol.selection import RunSelection
from detent.protocol.status import RunStatus
from detent.protocol.triggering import Triggered, TriggerRequest


async def retrieve_runs(place: Place, run_ids: Sequence[RunId]) -> list[RunRecord | None]:
    uuids = [ids.decode("run", run_id) for run_id in run_ids]
    found = await _find(place, uuids)
    return [found.get(value) for value in uuids]


async def list_runs(place: Place, selection: RunSelection, before: RunId | None, limit: int) -> list[RunRecord]:
    params = {
        "environment": place.environment,
        "selection": json.dumps(selections.to_fields(selection)),
        "before": None if before is None else ids.decode("run", before),
        "limit": limit,
    }
    listed = [cast("UUID", row[0]) for row in await place.db.call("list_runs", params)]
    found = await _find(place, listed)
    return [found[value] for value in listed if value in found]


async def watch_runs(place: Place, run_ids: Sequence[RunId]) -> list[RunOutcome | None]:
    """Mark runs as watched; return the outcomes of those that are over, read after the mark so that none slips through."""
    uuids = [ids.decode("run", run_id) for run_id in run_ids]
    await place.db.call("watch_runs", {"environment": place.environment, "ids": uuids})
    return await read_outcomes(place, run_ids)


async def read_outcomes(place: Place, run_ids: Sequence[RunId]) -> list[RunOutcome | None]:
    uuids = [ids.decode("run", run_id) for run_id in run_ids]
    rows = await place.db.call("find_outcomes", {"environment": place.environment, "ids": uuids})
    found = {cast("UUID", row[0]): child_result(cast("UUID", row[0]), *row[1:]) for row in rows}
    return [found.get(value) for value in uuids]


async def cancel_runs(place: Place, run_ids: Sequence[RunId], reason: str) -> list[bool | None]:
    uuids = [ids.decode("run", run_id) for run_id in run_ids]
    error = run_error.to_json(run_error.internal(ErrorCode.CANCELLED, reason))
    rows = await place.db.call("cancel_runs", {"environment": place.environment, "ids": uuids, "error": error})
    cancelled = announce(place.notifier, place.environment, rows)
    statuses = await place.db.call("find_statuses", {"environment": place.environment, "ids": uuids})
    known = {cast("UUID", row[0]) for row in statuses}
    return [None if value not in known else value.hex in cancelled for value in uuids]


async def replay_runs(
    place: Place, requests: Sequence[ReplayRequest], *, is_repeat: bool = False
) -> list[Triggered | Refused]:
    """Trigger again with what older runs had: payload, tags, metadata, queue, key, machine, test flag; or with what is given."""
    originals = await retrieve_runs(place, [request.replay_of for request in requests])
    pairs = list(zip(requests, originals, strict=True))
    replays = [_replay(request, original) for request, original in pairs if original is not None]
    made = iter(await trigger.trigger(place, replays, is_repeat=is_repeat))
    return [_not_there(place, request.replay_of) if original is None else next(made) for request, original in pairs]


async def reschedule_runs(place: Place, requests: Sequence[Rescheduling]) -> list[RunRecord | Refused | None]:
    """Move the dates of delayed runs, and return them."""
    fields = [
        {
            "id": ids.to_hex("run", request.run_id),
            "delay": lifecycle.seconds(request.delay),
            "due_at": lifecycle.date(request.delay),
        }
        for request in requests
    ]
    params = {"environment": place.environment, "requests": json.dumps(fields)}
    moved = {cast("UUID", row[0]) for row in await place.db.call("reschedule_runs", params)}
    for request in requests:
        place.alarm.set(request.delay)
    records = await retrieve_runs(place, [request.run_id for request in requests])
    return [
        record if record is None or ids.decode("run", record.id) in moved else _not_delayed(record) for record in records
    ]


def _not_delayed(run: RunRecord) -> Refused:
    message = f"run {run.id} is {run.status.value}: only a delayed run has a date to move"
    return Refused(status=422, code="run_not_delayed", message=message)


def _not_there(place: Place, run_id: RunId) -> Refused:
    message = f"there is no run {run_id} in environment {place.here.name}"
    return Refused(status=404, code="run_not_found", message=message)


async def reset_idempotency_key(place: Place, task_id: str, key: str) -> bool:
    rows = await place.db.call("reset_idempotency_key", {"environment": place.environment, "task": task_id, "key": key})
    return bool(rows)


async def _find(place: Place, uuids: Sequence[UUID]) -> dict[UUID, RunRecord]:
    if not uuids:
        return {}
    rows = await place.db.call("find_runs", {"environment": place.environment, "ids": list(uuids)})
    waits = await _find_waits(place, [row[0] for row in rows if row[2] == "WAITING"])
    obstacles = await _find_obstacles(place, [row[0] for row in rows if row[2] == "QUEUED"])
    failed = await _find_failed_attempts(place, [row[0] for row in rows if cast("int", row[3]) > 1])
    found = {cast("UUID", row[0]): _record(row, tuple(waits[row[0]]), tuple(obstacles[row[0]])) for row in rows}
    return {
        run_id: replace(record, attempts=(*failed[run_id], *_last_attempt(record))) for run_id, record in found.items()
    }


def _last_attempt(run: RunRecord) -> list[AttemptRecord]:
    if run.attempt_started_at is None:
        return []
    attempt = AttemptRecord(
        number=run.attempt,
        status=run.status,
        started_at=run.attempt_started_at,
        finished_at=run.finished_at,
        error=run.error,
    )
    return [attempt]


async def _find_waits(place: Place, waiting: list[object]) -> defaultdict[object, list[Wait]]:
    waits: defaultdict[object, list[Wait]] = defaultdict(list)
    for run_id, kind, waitpoint, due_at, task_id in await place.db.call("find_waits", {"ids": waiting}) if waiting else ():
        due = cast("datetime | None", due_at)
        waits[run_id].append(Wait(str(kind), cast("UUID", waitpoint), due, cast("str | None", task_id)))
    return waits


async def _find_obstacles(place: Place, queued: list[object]) -> defaultdict[object, list[Obstacle]]:
    obstacles: defaultdict[object, list[Obstacle]] = defaultdict(list)
    for run_id, kind, name, scope, key, allowed, taken, period, opens_at, paused_at, is_declared, holders in (
        await place.db.call("find_obstacles", {"ids": queued}) if queued else ()
    ):
        obstacle = Obstacle(
            kind=LimitKind(str(kind)),
            name=str(name),
            scope=str(scope),
            concurrency_key=cast("str | None", key),
            allowed=cast("int", allowed),
            taken=cast("int", taken),
            period=cast("float | None", period),
            opens_at=cast("datetime | None", opens_at),
            paused_at=cast("datetime | None", paused_at),
            is_declared=bool(is_declared),
            holders=tuple(cast("list[UUID]", holders)),
        )
        obstacles[run_id].append(obstacle)
    return obstacles


async def _find_failed_attempts(place: Place, retried: list[object]) -> defaultdict[object, list[AttemptRecord]]:
    attempts: defaultdict[object, list[AttemptRecord]] = defaultdict(list)
    for run_id, number, started_at, finished_at, error in (
        await place.db.call("find_attempts", {"ids": retried}) if retried else ()
    ):
        record = AttemptRecord(
            number=cast("int", number),
            status=RunStatus.FAILED,
            started_at=cast("datetime | None", started_at),
            finished_at=cast("datetime", finished_at),
            error=run_error.from_json(str(error)),
        )
        attempts[run_id].append(record)
    return attempts


def _record(row: Row, waits: tuple[Wait, ...], obstacles: tuple[Obstacle, ...]) -> RunRecord:
    (run_id, task_id, stored_status, attempt, max_attempts, queued_at, started_at, finished_at, due_at, wait_count, losses,
     parent_id, batch_id, created_at, payload, metadata, tags, queue, concurrency_key, priority, ttl, limits, expires_at,
     max_duration, idempotency_key, root_id, replay_of, schedule_id, is_test, output, error, is_solo, version, pinned_version,
     given_machine, machine, active, attempt_started_at, idempotency_scope, is_known, has_task,
     has_live_worker) = row  # fmt: skip
    status = RunStatus(str(stored_status))
    if status is RunStatus.QUEUED and not is_known:
        status = RunStatus.PENDING_VERSION
    due = cast("datetime | None", due_at)
    facts = Facts(
        status=status,
        task_id=str(task_id),
        queue=str(queue),
        version=cast("str | None", pinned_version),
        due_at=due,
        has_task=bool(has_task),
        has_live_worker=bool(has_live_worker),
        is_solo=bool(is_solo),
        waits=waits,
        obstacles=obstacles,
    )
    return RunRecord(
        id=RunId(public("run", run_id)),
        task_id=str(task_id),
        status=status,
        attempt=cast("int", attempt) if started_at else 0,
        created_at=cast("datetime", created_at),
        queued_at=cast("datetime | None", queued_at),
        started_at=cast("datetime | None", started_at),
        finished_at=cast("datetime | None", finished_at),
        due_at=due,
        queue=str(queue),
        concurrency_key=cast("str | None", concurrency_key),
        limits=tuple(cast("list[str]", limits)) if limits is not None else None,
        priority=cast("float", priority),
        ttl=cast("float | None", ttl),
        expires_at=cast("datetime | None", expires_at),
        tags=tuple(cast("list[str]", tags)),
        metadata=cast("str | None", metadata),
        payload=cast("str | None", payload),
        output=cast("str | None", output),
        error=run_error.from_json(str(error)) if error is not None else None,
        idempotency_key=cast("str | None", idempotency_key),
        idempotency_key_scope=cast("str | None", idempotency_scope),
        max_attempts=cast("int | None", max_attempts),
        max_duration=cast("float | None", max_duration),
        version=cast("str | None", version or pinned_version),
        parent_run_id=RunId(public("run", parent_id)) if parent_id else None,
        root_run_id=RunId(public("run", root_id)) if root_id else None,
        batch_id=BatchId(public("batch", batch_id)) if batch_id else None,
        replay_of=RunId(public("run", replay_of)) if replay_of else None,
        schedule_id=ScheduleId(public("sched", schedule_id)) if schedule_id else None,
        is_test=bool(is_test),
        machine=cast("str | None", machine),
        given_machine=cast("str | None", given_machine),
        usage_duration=cast("float", active),
        losses=cast("int", losses),
        waits=cast("int", wait_count),
        waiting_reason=why_waiting(facts),
        attempt_started_at=cast("datetime | None", attempt_started_at),
    )


def _replay(request: ReplayRequest, original: RunRecord) -> TriggerRequest:
    return TriggerRequest(
        run_id=request.run_id,
        task_id=original.task_id,
        payload=_first(request.payload, original.payload),
        is_validated=request.payload is None,
        delay=request.delay,
        queue=_first(request.queue, original.queue),
        concurrency_key=_first(request.concurrency_key, original.concurrency_key),
        limits=request.limits,
        priority=request.priority,
        ttl=request.ttl,
        version=request.version,
        debounce=request.debounce,
        max_attempts=request.max_attempts,
        max_duration=request.max_duration,
        machine=_first(request.machine, original.given_machine),
        tags=original.tags if request.tags is None else request.tags,
        metadata=_first(request.metadata, original.metadata),
        idempotency=request.idempotency,
        replay_of=original.id,
        is_test=original.is_test,
        is_watched=request.is_watched,
    )


def _first(given: str | None, kept: str | None) -> str | None:
    return kept if given is None else given
