"""Schedules as callers make, read and change them, and as code declares them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import assert_never, cast
from uuid import UUID

from detent.engine import ticks
from detent.engine.attempts import public
from detent.engine.db import Row, one
from detent.engine.place import Place
from detent.engine.ticks import CurrentVersion, Timetable
from detent.engine.trigger import Fields
from detent.protocol import ids
from detent.protocol.cron import Cron, Overlap
from detent.protocol.ids import ScheduleId
from detent.protocol.refusal import Refused
from detent.protocol.registration import TaskRegistration
from detent.protocol.schedules import (
    Activation,
    Deactivation,
    Deletion,
    ScheduleChange,
    ScheduleRecord,
    ScheduleRequest,
    ScheduleType,
    ScheduleUpdate,
)
from detent.protocol.triggering import TriggerRequest


async def sync_schedules(place: Place, version: int, tasks: Iterable[TaskRegistration]) -> None:
    """Make the declarative schedules those of a version that was registered just now."""
    now = await _now(place)
    declared = [
        _declared_fields(task.task_id, task.cron, now)
        for task in tasks
        if task.cron is not None and task.cron.is_for(place.here.public)
    ]
    params = {
        "environment": place.environment,
        "version": version,
        "declared": json.dumps(declared),
        # There, saving a file may bring back a version of before.
        "always": place.here.is_development,
    }
    await place.db.call("sync_schedules", params)


async def create_schedules(place: Place, requests: Sequence[ScheduleRequest]) -> list[ScheduleRecord | Refused]:
    """Make schedules. One whose deduplication key has a schedule already changes that."""
    now = await _now(place)
    refusals = await _task_refusals(place, requests, now)
    good = [request for i, request in enumerate(requests) if i not in refusals]
    if not good:
        return [refusals[i] for i in range(len(requests))]
    definitions = [_definition_fields(request, now) | {"key": request.deduplication_key} for request in good]
    await place.db.call("insert_schedules", _params(place, definitions))
    found = await _find_made(place, good)
    if others := _updates(good, found):
        await place.db.call("update_schedules", _params(place, [_definition_fields(update, now) for update in others]))
        found = await _find_made(place, good)
    return [
        refusals.get(i)
        or found.get(_name(request.schedule_id, request.deduplication_key))
        or _not_there(place, request.schedule_id)
        for i, request in enumerate(requests)
    ]


async def _find_made(place: Place, requests: Sequence[ScheduleRequest]) -> dict[str, ScheduleRecord]:
    found = await _find(
        place,
        wanted=[ids.decode("sched", request.schedule_id) for request in requests if request.deduplication_key is None],
        keys=[request.deduplication_key for request in requests if request.deduplication_key is not None],
    )
    return {_name(record.id, record.deduplication_key): record for record in found}


def _name(schedule_id: ScheduleId, key: str | None) -> str:
    """Return what a schedule is found by: its key, if it has one; else its id, which is no other's key then."""
    return schedule_id if key is None else f"key {key}"


def _updates(requests: Sequence[ScheduleRequest], found: Mapping[str, ScheduleRecord]) -> list[ScheduleUpdate]:
    """Return what becomes of schedules that were there before; of several requests for one the last counts."""
    updates = {
        record.id: ScheduleUpdate(
            schedule_id=record.id, task_id=request.task_id, cron=request.cron, external_id=request.external_id
        )
        for request in requests
        if (record := found.get(_name(request.schedule_id, request.deduplication_key)))
        and record.id != request.schedule_id
    }
    return list(updates.values())


async def retrieve_schedules(place: Place, schedule_ids: Sequence[ScheduleId]) -> list[ScheduleRecord | None]:
    uuids = [ids.decode("sched", schedule_id) for schedule_id in schedule_ids]
    found = {record.id: record for record in await _find(place, wanted=uuids)}
    return [found.get(schedule_id) for schedule_id in schedule_ids]


async def list_schedules(place: Place, offset: int, limit: int) -> tuple[list[ScheduleRecord], int]:
    """Return a page, the oldest first, and how many schedules there are."""
    (count,) = one(await place.db.call("count_schedules", {"environment": place.environment}))
    rows = await place.db.call("list_schedules", {"environment": place.environment, "offset": offset, "limit": limit})
    return await _records(place, rows), cast("int", count)


async def change_schedules(place: Place, changes: Sequence[ScheduleChange]) -> list[ScheduleRecord | Refused]:
    """Carry out changes, and return each schedule as it is then; a deleted one as it was."""
    return [await _change(place, change) for change in changes]


async def _change(place: Place, change: ScheduleChange) -> ScheduleRecord | Refused:
    (record,) = await retrieve_schedules(place, [change.schedule_id])
    if record is None:
        return _not_there(place, change.schedule_id)
    if record.type is ScheduleType.DECLARATIVE:
        return _is_declared(record)
    named = {"environment": place.environment, "id": ids.decode("sched", change.schedule_id)}
    match change:
        case ScheduleUpdate():
            now = await _now(place)
            if refusals := await _task_refusals(place, [change], now):
                return refusals[0]
            await place.db.call("update_schedules", _params(place, [_definition_fields(change, now)]))
        case Activation():
            timetable = Timetable(cron=record.cron, timezone=record.timezone, spread=record.window)
            next_at, due_at = _first(timetable, ids.decode("sched", record.id), await _now(place))
            await place.db.call("set_next_tick", named | {"next_at": next_at, "due_at": due_at})
        case Deactivation():
            await place.db.call("set_next_tick", named | {"next_at": None, "due_at": None})
        case Deletion():
            await place.db.call("delete_schedule", named)
            return record
        case _:
            assert_never(change)
    (changed,) = await retrieve_schedules(place, [change.schedule_id])
    return changed or _not_there(place, change.schedule_id)


async def _task_refusals(
    place: Place, definitions: Sequence[ScheduleRequest | ScheduleUpdate], now: datetime
) -> dict[int, Refused]:
    """Return, by their places, what cannot be scheduled: nobody has registered the task, or it takes other payloads."""
    requests = [
        TriggerRequest(
            run_id=ids.new_run_id(),
            task_id=each.task_id,
            payload=ticks.sample_payload(_timetable(each.cron), each.schedule_id, now),
        )
        for each in definitions
    ]
    misfits = await place.tasks.check(requests)
    unknown = [i for i, each in enumerate(definitions) if place.tasks.task(each.task_id).version_id is None]
    known = (await ticks.find_current_version(place)).tasks if unknown else frozenset[str]()
    return {
        i: _not_scheduled(definitions[i].task_id, refusal)
        for i, refusal in misfits.items()
        if refusal.code == "invalid_payload"
    } | {i: _unknown_task(definitions[i].task_id, known) for i in unknown}


def _not_scheduled(task_id: str, misfit: Refused) -> Refused:
    message = f'task "{task_id}" takes no ScheduledPayload, so it cannot be scheduled; define it with @schedules.task'
    return Refused(status=422, code="task_not_scheduled", message=message, details=misfit.details)


def _unknown_task(task_id: str, known: Iterable[str]) -> Refused:
    near = get_close_matches(task_id, sorted(known), n=1)
    hint = f'did you mean "{near[0]}"?' if near else "start a worker that has it first"
    return Refused(status=422, code="unknown_task", message=f'no worker has registered a task "{task_id}"; {hint}')


def _definition_fields(definition: ScheduleRequest | ScheduleUpdate, now: datetime) -> Fields:
    schedule, cron = ids.decode("sched", definition.schedule_id), definition.cron
    return _cron_fields(schedule, definition.task_id, cron, now) | {"external_id": definition.external_id}


def _declared_fields(task_id: str, cron: Cron, now: datetime) -> Fields:
    return _cron_fields(ids.decode("sched", ids.new_schedule_id()), task_id, cron, now)


def _cron_fields(schedule: UUID, task_id: str, cron: Cron, now: datetime) -> Fields:
    next_at, due_at = _first(_timetable(cron), schedule, now)
    return {
        "id": schedule.hex,
        "task": task_id,
        "cron": cron.pattern,
        "timezone": cron.timezone,
        "spread": cron.window,
        "overlap": cron.overlap,
        "next_at": next_at.isoformat(),
        "due_at": due_at.isoformat(),
    }


def _params(place: Place, definitions: Sequence[Fields]) -> Fields:
    return {"environment": place.environment, "definitions": json.dumps(definitions)}


def _first(timetable: Timetable, schedule: UUID, now: datetime) -> tuple[datetime, datetime]:
    tick = timetable.first_after(now)
    return tick.at, tick.due(schedule)


def _timetable(cron: Cron) -> Timetable:
    return Timetable(cron=cron.pattern, timezone=cron.timezone, spread=cast("str | None", cron.window))


async def _now(place: Place) -> datetime:
    (now,) = one(await place.db.call("read_clock", {}))
    return ticks.utc(now)


async def _find(place: Place, *, wanted: Sequence[UUID] = (), keys: Sequence[str] = ()) -> list[ScheduleRecord]:
    params = {"environment": place.environment, "ids": list(wanted), "keys": list(keys)}
    return await _records(place, await place.db.call("find_schedules", params))


async def _records(place: Place, rows: Sequence[Row]) -> list[ScheduleRecord]:
    current = await ticks.find_current_version(place) if rows else CurrentVersion()
    return [_record(row, current, is_development=place.here.is_development) for row in rows]


def _record(row: Row, current: CurrentVersion, *, is_development: bool) -> ScheduleRecord:
    (schedule, kind, task_id, cron, timezone, window, overlap, external_id, key, next_at, due_at, last_at,
     created_at) = row  # fmt: skip
    return ScheduleRecord(
        id=ScheduleId(public("sched", schedule)),
        type=ScheduleType(str(kind)),
        task_id=str(task_id),
        is_active=next_at is not None,
        cron=str(cron),
        description=Cron(str(cron)).description,
        timezone=str(timezone),
        window=cast("str | None", window),
        overlap=cast("Overlap", overlap),
        external_id=cast("str | None", external_id),
        deduplication_key=cast("str | None", key),
        next_run_at=ticks.utc(next_at) if next_at is not None else None,
        next_run_effective_at=ticks.utc(due_at) if due_at is not None else None,
        last_run_at=ticks.utc(last_at) if last_at is not None else None,
        created_at=cast("datetime", created_at),
        obstacle=current.obstacle(str(task_id), is_development=is_development) if next_at is not None else None,
    )


def _not_there(place: Place, schedule_id: ScheduleId) -> Refused:
    message = f"there is no schedule {schedule_id} in environment {place.here.name}"
    return Refused(status=404, code="schedule_not_found", message=message)


def _is_declared(record: ScheduleRecord) -> Refused:
    message = f'schedule {record.id} is declared by the code of task "{record.task_id}"; change its cron= there'
    return Refused(status=422, code="schedule_declared", message=message)
