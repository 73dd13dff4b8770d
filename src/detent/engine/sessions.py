"""Workers: the versions of code they register, and the sessions under which their runners hold runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import cast

from detent.engine import retention, schedules
from detent.engine.attempts import holders_json, public
from detent.engine.events import announce
from detent.engine.place import Place
from detent.protocol import ids, run_error
from detent.protocol.execution import Isolation
from detent.protocol.flow import LimitDeclaration
from detent.protocol.ids import RunId, SessionId
from detent.protocol.registration import RegisteredTask, TaskRegistration, WorkerRegistration
from detent.protocol.sessions import Renewal, Renewed, SessionBeat, SessionEnd, SessionEnded, SessionOpening


async def register_worker(place: Place, registration: WorkerRegistration) -> str:
    """Make the tasks known and return the version's name. Runs queued for them can be leased from here on."""
    tasks = [_task_fields(task) for task in sorted(registration.tasks, key=lambda task: task.task_id)]
    text, limits = json.dumps(tasks), json.dumps([_limit_fields(limit) for limit in sorted(registration.limits, key=_by_name)])
    machines = sorted(registration.machines)
    wanted = {
        "environment": place.environment,
        "name": registration.version,
        "fingerprint": hashlib.sha256((text + limits + "".join(machines)).encode()).hexdigest(),
        "machines": machines,
    }
    rows = await place.db.call("find_version", wanted)
    while not rows:
        rows = await place.db.call("make_version", wanted) or await place.db.call("find_version", wanted)
        if not rows and registration.version is not None:
            # The name is taken by other tasks: the same version with new code, as in a deploy that names no new one.
            rows = await place.db.call("find_named_version", wanted)
    version, name = rows[0]
    await retention.set_retention(place.db, place.environment, registration.retention)
    params = {"environment": place.environment, "version": version, "tasks": text, "limits": limits}
    ((is_open,),) = await place.db.call("register_tasks", params)
    place.tasks.forget()
    if is_open:
        place.notifier.notify(place.environment, ready=1)
    await schedules.sync_schedules(place, cast("int", version), registration.tasks)
    return str(name)


async def open_session(place: Place, opening: SessionOpening) -> None:
    await place.db.call(
        "open_session",
        {
            "session": ids.decode("session", opening.session_id),
            "environment": place.environment,
            "version": opening.version,
            "worker": opening.worker,
        },
    )


async def renew_sessions(place: Place, renewals: Sequence[Renewal]) -> list[Renewed]:
    solo = cast("int", (await place.db.call("count_solo", {"environment": place.environment}))[0][0])
    return [await _renew(place, renewal, solo) for renewal in renewals]


async def end_session(place: Place, end: SessionEnd) -> SessionEnded:
    rows = await place.db.call(
        "end_session",
        {
            "session": ids.decode("session", end.session_id),
            "suspects": [ids.decode("run", run_id) for run_id in end.suspects],
            "unanswered": list(end.unanswered),
            "error": run_error.to_json(end.error) if end.error else None,
            "is_lost": end.is_lost,
            "beat": end.beat,
        },
    )
    announce(place.notifier, place.environment, [row[:5] for row in rows if row[0] != "alone"])
    alone = tuple(cast("float", row[5]) for row in rows if row[0] == "alone")
    for pause in alone:
        place.alarm.set(timedelta(seconds=pause))
    return SessionEnded(returned=sum(row[0] == "returned" for row in rows), alone=alone)


async def list_sessions(place: Place) -> list[SessionBeat]:
    rows = await place.db.call("list_sessions", {"environment": place.environment})
    return [
        SessionBeat(session_id=SessionId(public("session", session)), beat=cast("int", beat)) for session, beat in rows
    ]


async def list_tasks(place: Place) -> list[RegisteredTask]:
    rows = await place.db.call("list_tasks", {"environment": place.environment})
    return [
        RegisteredTask(
            task_id=str(task_id),
            isolation=Isolation(str(isolation)),
            file_path=str(file_path),
            queue=str(queue),
            description=str(description),
            version=str(version),
            payload_schema=cast("str | None", payload_schema),
            has_live_worker=bool(has_live_worker),
        )
        for task_id, isolation, file_path, queue, description, payload_schema, version, has_live_worker in rows
    ]


async def _renew(place: Place, renewal: Renewal, solo: int) -> Renewed:
    rows = await place.db.call(
        "renew_session",
        {
            "environment": place.environment,
            "session": ids.decode("session", renewal.session_id),
            "held": holders_json(renewal.held),
            "in_flight": list(renewal.in_flight),
            "is_repeat": False,
        },
    )
    found: dict[str, list[RunId]] = {"lost": [], "cancelled": [], "returned": [], "ended": []}
    for what, run_id in rows:
        found[str(what)].append(RunId(public("run", run_id)) if run_id else RunId(""))
    place.notifier.notify(place.environment, ready=len(found["returned"]))
    return Renewed(
        session_id=renewal.session_id,
        is_alive=not found["ended"],
        lost=tuple(found["lost"]),
        cancelled=tuple(found["cancelled"]),
        solo_waiting=solo,
    )


def _task_fields(task: TaskRegistration) -> dict[str, object]:
    fields: dict[str, object] = {
        "task": task.task_id,
        "isolation": task.isolation.value,
        "file": task.file_path,
        "queue": task.queue,
        "description": task.description,
        "max_attempts": json.loads(task.retry)["max_attempts"],
        "retry": task.retry,
        "max_duration": task.max_duration,
        "ttl": task.ttl,
        "limits": task.limits,
        "on_lost": task.on_lost.value,
        "final_hooks": [end.value for end in task.final_hooks],
        "payload_schema": task.payload_schema,
        "output_schema": task.output_schema,
        "machine": task.machine,
        "oom_machine": task.oom_machine,
    }
    # A version with another schedule is another version.
    return fields if task.cron is None else fields | {"cron": asdict(task.cron)}


def _limit_fields(limit: LimitDeclaration) -> dict[str, object]:
    return {
        "kind": limit.kind.value,
        "name": limit.name,
        "total": limit.total,
        "per_key": limit.per_key,
        "rate": asdict(limit.rate) if limit.rate is not None else None,
        "most_queued": limit.most_queued,
    }


def _by_name(limit: LimitDeclaration) -> tuple[str, str]:
    return limit.kind.value, limit.name
