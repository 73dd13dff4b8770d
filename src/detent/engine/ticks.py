"""Firing schedules: which of those that are due make a run, what it is given, and when their next tick is.

Any number of processes may do it. What one has read is compared when it is written: a tick that another has fired is passed over.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

from detent.engine import trigger
from detent.engine.db import Db
from detent.engine.place import Place
from detent.engine.trigger import Fields
from detent.errors import ScheduleError
from detent.protocol import ids
from detent.protocol.cron import LONGEST_WINDOW, next_tick, spread, ticks_after
from detent.protocol.ids import ScheduleId
from detent.protocol.refusal import Refused
from detent.protocol.schedules import ScheduleType
from detent.protocol.triggering import TriggerRequest

PUNCTUAL = timedelta(minutes=1)
"""What is later than this was missed."""
AHEAD_SECONDS = 2.0
"""So far ahead a ticker looks, and so long it sleeps when nothing is due by then."""
_MOST_FIRED = 2000
_AT_ONCE = 2
"""Calls that fire, when so many are due: while one waits for the disk, the other works."""
_HELD_SECONDS = 0.02
"""How long what is due is left to those who hold it."""
_PHASES = 1 << 32

log = logging.getLogger("detent.schedules")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A tick of a pattern, and for how long after it schedules fire that share the pattern."""

    at: datetime
    width: timedelta

    def due(self, schedule: UUID) -> datetime:
        """Return when one schedule fires."""
        return self.at + self.width * phase(schedule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """The tick after one that fires now, for schedules that are in a part of their window."""

    tick: Tick
    phase_from: float = 0.0
    phase_until: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """When schedules tick, and in which window after their ticks they fire."""

    cron: str
    timezone: str
    spread: str | None

    def first_after(self, moment: datetime) -> Tick:
        at = next_tick(self.cron, self.timezone, moment)
        if self.spread is None:
            return Tick(at=at, width=timedelta(0))
        return Tick(at=at, width=spread(self.spread, next_tick(self.cron, self.timezone, at) - at))

    def following(self, at: datetime, now: datetime) -> list[Following]:
        """Return the tick after one that fires now. What would have fired by now was missed."""
        tick = self.first_after(at)
        if tick.at > now:
            return [Following(tick=tick)]
        ahead = self.first_after(now)
        latest = self._latest(max(at, now - LONGEST_WINDOW), now) if self.spread else None
        if latest is None or latest.at + latest.width <= now:
            return [Following(tick=ahead)]
        over = (now - latest.at) / latest.width
        return [Following(tick=ahead, phase_until=over), Following(tick=latest, phase_from=over)]

    def _latest(self, after: datetime, now: datetime) -> Tick | None:
        """Return the last tick up to now, the only one whose window may still be open; None: there is none."""
        latest, tick = None, self.first_after(after)
        while tick.at <= now:
            latest, tick = tick, self.first_after(tick.at)
        return latest


def phase(schedule: UUID) -> float:
    """Return where in its window a schedule fires, from 0 up to 1: always the same, and no other's."""
    return int.from_bytes(hashlib.sha256(b"window" + schedule.bytes).digest()[:4]) / _PHASES


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What schedules that are due have in common, as it was read."""

    task_id: str
    timetable: Timetable
    at: datetime
    now: datetime
    count: int


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
    rows = await db.call("find_due_schedules", {"ahead": AHEAD_SECONDS, "most": _MOST_FIRED * _AT_ONCE})
    due: defaultdict[str, list[Due]] = defaultdict(list)
    pauses = [cast("float", row[-1]) for row in rows]
    for slug, *row, pause in rows:
        shared = _due(row)
        if cast("float", pause) <= 0 and _is_understood(shared):
            due[str(slug)].append(shared)
    moved = [await _fire(await place_of(slug), shared) for slug, shared in due.items()]
    if any(moved):
        return 0.0
    return _HELD_SECONDS if moved else min((pause for pause in pauses if pause > 0), default=AHEAD_SECONDS)


def _is_understood(due: Due) -> bool:
    """Whether this host knows the time zone: its data may be older than those of whoever made the schedules."""
    try:
        due.timetable.first_after(due.at)
    except ScheduleError as error:
        log.warning('schedules of task "%s" are left to other hosts: %s', due.task_id, error)
        return False
    return True


async def _fire(place: Place, due: Sequence[Due]) -> int:
    """Return how many schedules have moved on."""
    current = await find_current_version(place)
    task_ids = {each.task_id for each in due}
    obstacles = {task_id: current.obstacle(task_id, is_development=place.here.is_development) for task_id in task_ids}
    templates = await _templates(place, {task_id for task_id, obstacle in obstacles.items() if obstacle is None})
    params = {
        "environment": place.environment,
        "moment": due[0].now,
        "timetables": json.dumps([fields for each in due for fields in timetable_fields(place, each, templates)]),
        "most": _MOST_FIRED,
    }
    calls = -(-sum(each.count for each in due) // _MOST_FIRED)
    answers = await asyncio.gather(*(place.db.call("fire_schedules", params) for _ in range(calls)))
    moved, fired = Counter[str](), Counter[str]()
    for task_id, moved_there, fired_there in itertools.chain.from_iterable(answers):
        moved[str(task_id)] += cast("int", moved_there)
        fired[str(task_id)] += cast("int", fired_there)
    place.notifier.notify(place.environment, ready=fired.total(), tasks=(+fired).keys())
    _tell_obstacles(place, moved, obstacles, templates)
    return moved.total()


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
    return {request.task_id: refusals.get(i) or _template(place, request) for i, request in enumerate(requests)}


def _template(place: Place, request: TriggerRequest) -> Fields:
    own = {"i", "id", "payload"}
    return {name: value for name, value in trigger.fields_of(place, 0, request).items() if name not in own}


def timetable_fields(place: Place, due: Due, templates: dict[str, Fields | Refused]) -> Iterator[Fields]:
    """Return what `fire_schedules` reads of schedules that are due: for each tick that may follow."""
    template, timetable = templates.get(due.task_id), due.timetable
    fires = isinstance(template, dict)
    for following in timetable.following(due.at, due.now):
        yield {
            "task": due.task_id,
            "cron": timetable.cron,
            "timezone": timetable.timezone,
            "spread": timetable.spread,
            "at": due.at.isoformat(),
            "phase_from": following.phase_from,
            "phase_until": following.phase_until,
            "next_at": following.tick.at.isoformat(),
            "next_spread": following.tick.width.total_seconds(),
            "fires_after": (due.now - PUNCTUAL).isoformat() if place.here.is_development else "-infinity",
            "run": json.dumps(template)[1:] if fires else None,
            "payload": common_payload(timetable, due.at) if fires else None,
        }


def sample_payload(timetable: Timetable, schedule_id: ScheduleId, now: datetime) -> str:
    """Return the `ScheduledPayload` of a schedule's first tick, as JSON text."""
    own = {"schedule_id": schedule_id, "type": ScheduleType.IMPERATIVE.value, "last_timestamp": None, "external_id": None}
    return f"{common_payload(timetable, timetable.first_after(now).at)}, {json.dumps(own)[1:]}"


def common_payload(timetable: Timetable, at: datetime) -> str:
    """Return the part of a `ScheduledPayload` that schedules share: JSON text without its end."""
    upcoming = ticks_after(timetable.cron, timetable.timezone, at)
    common = {
        "timestamp": at.isoformat(),
        "timezone": timetable.timezone,
        "upcoming": [moment.isoformat() for moment in upcoming],
    }
    return json.dumps(common)[:-1]


def _tell_obstacles(
    place: Place, moved: Mapping[str, int], obstacles: dict[str, str | None], templates: dict[str, Fields | Refused]
) -> None:
    for task_id, count in sorted(moved.items()):
        template = templates.get(task_id)
        reason = template.message if isinstance(template, Refused) else obstacles[task_id]
        if reason is not None:
            log.warning('%d schedules of task "%s" in environment "%s" made no run: %s', count, task_id, place.here.name, reason)


def _due(row: Sequence[object]) -> Due:
    task_id, cron, timezone, window, at, now, count = row
    timetable = Timetable(cron=str(cron), timezone=str(timezone), spread=cast("str | None", window))
    return Due(task_id=str(task_id), timetable=timetable, at=utc(at), now=utc(now), count=cast("int", count))


def utc(moment: object) -> datetime:
    return cast("datetime", moment).astimezone(UTC)
