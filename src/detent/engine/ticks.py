"""Firing schedules: which of those that are due make a run, what it is given, and when their next tick is.

Any number of processes may do it. What one has read is compared when it is written: a tick that another has fired is passed over.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import cast
from uuid import UUID

from detent.engine import trigger
from detent.engine.db import Db
from detent.engine.place import Place
from detent.engine.trigger import Fields
from detent.errors import ScheduleError
from detent.protocol import ids
from detent.protocol.cron import LONGEST_WINDOW, next_tick, spread, ticks_after
from detent.protocol.models import Refused, TriggerRequest

PUNCTUAL = timedelta(minutes=1)
"""What is later than this was missed."""
AHEAD_SECONDS = 2.0
"""So far ahead a ticker looks, and so long it sleeps when nothing is due by then."""
_MOST_FIRED = 2000
_PHASES = 1 << 32

log = logging.getLogger("detent.schedules")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """When a schedule ticks, and how long after its ticks it fires."""

    schedule: UUID
    cron: str
    timezone: str
    spread: str | None

    def first_after(self, now: datetime) -> tuple[datetime, datetime]:
        """Return the first tick after *now*, and when it fires."""
        return self._with_due(next_tick(self.cron, self.timezone, now))

    def following(self, tick: datetime, now: datetime) -> tuple[datetime, datetime]:
        """Return the tick after one that fires now, and when it fires. Those that would have fired by now were missed."""
        following, due = self._with_due(next_tick(self.cron, self.timezone, tick))
        if due <= now:
            start = now - LONGEST_WINDOW if self.spread else now
            following, due = self.first_after(max(tick, start))
        while due <= now:
            following, due = self.first_after(following)
        return following, due

    def _with_due(self, tick: datetime) -> tuple[datetime, datetime]:
        if self.spread is None:
            return tick, tick
        interval = next_tick(self.cron, self.timezone, tick) - tick
        return tick, tick + spread(self.spread, interval) * _phase(self.schedule)


@lru_cache(maxsize=100_000)
def _phase(schedule: UUID) -> float:
    """Return where in its window a schedule fires, from 0 up to 1: always the same, and no other's."""
    return int.from_bytes(hashlib.sha256(b"window" + schedule.bytes).digest()[:4]) / _PHASES


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A schedule that is due, as it was read."""

    timetable: Timetable
    run: UUID
    definition: int
    type: str
    task_id: str
    external_id: str | None
    at: datetime
    due_at: datetime
    last_at: datetime | None
    now: datetime

    @property
    def is_late(self) -> bool:
        return self.now - self.due_at > PUNCTUAL


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentVersion:
    """The code of an environment at present, which alone is scheduled."""

    name: str | None = None
    is_live: bool = False
    """A worker that has it runs."""
    tasks: frozenset[str] = frozenset()

    def obstacle(self, task_id: str, *, is_development: bool) -> str | None:
        """Return why schedules of a task make no runs; None: they do."""
        if self.name is None:
            return f'no worker has registered task "{task_id}"; start one that has it'
        if task_id not in self.tasks:
            return f'task "{task_id}" is not in the current version {self.name}; deploy one that has it, or delete the schedule'
        if is_development and not self.is_live:
            return "no worker runs, and in development schedules fire only while one does; start `detent dev`"
        return None


async def fire_due(db: Db, place_of: Callable[[str], Awaitable[Place]]) -> float:
    """Fire some of the schedules that are due; return the seconds until more may be."""
    rows = await db.call("find_due_schedules", {"ahead": AHEAD_SECONDS, "most": _MOST_FIRED})
    due: defaultdict[str, list[Tick]] = defaultdict(list)
    pauses = [cast("float", row[-1]) for row in rows]
    for slug, *row, pause in rows:
        tick = _tick(row)
        if cast("float", pause) <= 0 and _is_understood(tick):
            due[str(slug)].append(tick)
    for slug, ticks in due.items():
        await _fire(await place_of(slug), ticks)
    return 0.0 if due else min((pause for pause in pauses if pause > 0), default=AHEAD_SECONDS)


def _is_understood(tick: Tick) -> bool:
    """Whether this host knows the tick's time zone: its data may be older than those of whoever made the schedule."""
    try:
        tick.timetable.first_after(tick.at)
    except ScheduleError as error:
        schedule = ids.encode("sched", tick.timetable.schedule)
        log.warning("schedule %s is left to other hosts: %s", schedule, error)
        return False
    return True


async def _fire(place: Place, ticks: Sequence[Tick]) -> None:
    current = await find_current_version(place)
    task_ids = {tick.task_id for tick in ticks}
    obstacles = {task_id: current.obstacle(task_id, is_development=place.here.is_development) for task_id in task_ids}
    templates = await _templates(place, {task_id for task_id, obstacle in obstacles.items() if obstacle is None})
    firing = [
        i
        for i, tick in enumerate(ticks)
        if isinstance(templates.get(tick.task_id), dict) and not (place.here.is_development and tick.is_late)
    ]
    rows = await place.db.call(
        "fire_schedules",
        {
            "environment": place.environment,
            "ticks": json.dumps([_tick_fields(i, tick) for i, tick in enumerate(ticks)]),
            "requests": json.dumps([_run_fields(i, ticks[i], templates) for i in firing]),
        },
    )
    place.notifier.notify(place.environment, ready=len(rows), tasks={ticks[cast("int", i)].task_id for (i,) in rows})
    _tell_obstacles(place, ticks, obstacles, templates)


async def find_current_version(place: Place) -> CurrentVersion:
    rows = await place.db.call("find_current_tasks", {"environment": place.environment})
    for name, is_live, tasks in rows:
        return CurrentVersion(name=str(name), is_live=bool(is_live), tasks=frozenset(cast("list[str]", tasks)))
    return CurrentVersion()


async def _templates(place: Place, task_ids: set[str]) -> dict[str, Fields | Refused]:
    """Return what the scheduled runs of each task have in common, or why it takes none."""
    requests = [
        TriggerRequest(run_id=ids.new_run_id(), task_id=task_id, is_validated=True) for task_id in sorted(task_ids)
    ]
    refusals = await place.tasks.check(requests)
    await trigger.ensure_lanes(place, [(request, None) for request in requests])
    return {
        request.task_id: refusals.get(i) or trigger.fields_of(place, i, request) for i, request in enumerate(requests)
    }


def _tick_fields(i: int, tick: Tick) -> Fields:
    next_at, due_at = tick.timetable.following(tick.at, tick.now)
    return {
        "i": i,
        "schedule": tick.timetable.schedule.hex,
        "definition": tick.definition,
        "at": tick.at.isoformat(),
        "run": tick.run.hex,
        "next_at": next_at.isoformat(),
        "due_at": due_at.isoformat(),
    }


def _run_fields(i: int, tick: Tick, templates: dict[str, Fields | Refused]) -> Fields:
    template = templates[tick.task_id]
    assert isinstance(template, dict)
    return template | {
        "i": i,
        "id": tick.run.hex,
        "payload": payload(tick),
        "schedule": tick.timetable.schedule.hex,
        "position": tick.due_at.isoformat(),
    }


def payload(tick: Tick) -> str:
    """Return the `ScheduledPayload` of a tick as JSON text."""
    timetable = tick.timetable
    fields = {
        "timestamp": tick.at.isoformat(),
        "timezone": timetable.timezone,
        "schedule_id": ids.encode("sched", timetable.schedule),
        "type": tick.type,
        "last_timestamp": tick.last_at.isoformat() if tick.last_at else None,
        "external_id": tick.external_id,
    }
    return f'{json.dumps(fields)[:-1]}, "upcoming": {_upcoming(timetable.cron, timetable.timezone, tick.at)}}}'


@lru_cache(maxsize=20_000)
def _upcoming(cron: str, timezone: str, tick: datetime) -> str:
    return json.dumps([moment.isoformat() for moment in ticks_after(cron, timezone, tick)])


def _tell_obstacles(
    place: Place, ticks: Sequence[Tick], obstacles: dict[str, str | None], templates: dict[str, Fields | Refused]
) -> None:
    for task_id in sorted(obstacles):
        template = templates.get(task_id)
        reason = template.message if isinstance(template, Refused) else obstacles[task_id]
        if reason is not None:
            count = sum(tick.task_id == task_id for tick in ticks)
            log.warning('%d schedules of task "%s" in environment "%s" made no run: %s', count, task_id, place.here.name, reason)


def _tick(row: Sequence[object]) -> Tick:
    schedule, definition, kind, task_id, cron, timezone, window, external_id, next_at, due_at, last_at, now = row
    timetable = Timetable(
        schedule=cast("UUID", schedule), cron=str(cron), timezone=str(timezone), spread=cast("str | None", window)
    )
    at = utc(next_at)
    return Tick(
        timetable=timetable,
        run=ids.scheduled_run_uuid(timetable.schedule, at),
        definition=cast("int", definition),
        type=str(kind),
        task_id=str(task_id),
        external_id=cast("str | None", external_id),
        at=at,
        due_at=utc(due_at),
        last_at=utc(last_at) if last_at is not None else None,
        now=utc(now),
    )


def utc(moment: object) -> datetime:
    return cast("datetime", moment).astimezone(UTC)
