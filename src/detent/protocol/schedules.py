"""Schedules as they cross between callers and a backend, and the payload of the runs that they make."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from detent.protocol.cron import Cron, Overlap
from detent.protocol.ids import ScheduleId


class ScheduleType(StrEnum):
    """Where a schedule was made."""

    DECLARATIVE = "DECLARATIVE"
    """Said by the code, on the task: changed and removed there."""
    IMPERATIVE = "IMPERATIVE"
    """Made by a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledPayload:
    """What a scheduled run is given. Times are in UTC and nominal: of the pattern, whatever the window and the queue."""

    timestamp: datetime
    """The tick that the run is for."""
    timezone: str
    schedule_id: str
    type: ScheduleType
    last_timestamp: datetime | None = None
    """The tick that fired before; None for the first."""
    external_id: str | None = None
    upcoming: tuple[datetime, ...] = ()
    """The next ten ticks."""

    @property
    def local(self) -> datetime:
        """`timestamp` in the schedule's time zone."""
        from zoneinfo import ZoneInfo

        return self.timestamp.astimezone(ZoneInfo(self.timezone))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRequest:
    """A schedule to make, or to change where the deduplication key has one already. The caller makes `schedule_id`."""

    schedule_id: ScheduleId
    task_id: str
    cron: Cron
    external_id: str | None = None
    deduplication_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleUpdate:
    """Puts another definition in the place of an imperative schedule's own."""

    schedule_id: ScheduleId
    task_id: str
    cron: Cron
    external_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    schedule_id: ScheduleId


@dataclass(frozen=True, slots=True, kw_only=True)
class Deactivation:
    schedule_id: ScheduleId


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    schedule_id: ScheduleId


ScheduleChange: TypeAlias = ScheduleUpdate | Activation | Deactivation | Deletion


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRecord:
    """A schedule as it was when it was read."""

    id: ScheduleId
    type: ScheduleType
    task_id: str
    is_active: bool
    cron: str
    description: str
    """The pattern in words."""
    timezone: str
    window: str | None
    overlap: Overlap
    external_id: str | None
    deduplication_key: str | None
    next_run_at: datetime | None
    """The next tick; None while it is deactivated."""
    next_run_effective_at: datetime | None
    """When its run starts: later than the tick where there is a window."""
    last_run_at: datetime | None
    """The tick that fired last."""
    created_at: datetime
    obstacle: str | None = None
    """Why it makes no runs although it is active; None: it makes them."""
