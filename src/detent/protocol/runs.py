"""Runs as anybody reads them, and what is asked about one that exists."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from detent.protocol.flow import Debouncing
from detent.protocol.idempotency import Idempotency
from detent.protocol.ids import BatchId, RunId, ScheduleId
from detent.protocol.moment import When
from detent.protocol.run_error import RunError
from detent.protocol.status import RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """How a run ended, for whoever waited for it."""

    run_id: RunId
    task_id: str
    status: RunStatus
    output: str | None = None
    error: RunError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingReason:
    """Why a run is not running: a code with its facts, and the same in words."""

    code: str
    text: str
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """An attempt: one that failed and was followed by another (`FAILED`), or the last, which has the status of its run."""

    number: int
    status: RunStatus
    started_at: datetime | None
    finished_at: datetime | None
    """None: it goes on."""
    error: RunError | None
    """None: it has not failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as it is read. `payload`, `output`, `metadata` are JSON text."""

    id: RunId
    task_id: str
    status: RunStatus
    attempt: int
    created_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    due_at: datetime | None
    queue: str
    concurrency_key: str | None
    limits: tuple[str, ...] | None
    """Names given at the trigger; None: the task's."""
    priority: float
    ttl: float | None
    """Seconds; None: the task's, if it has one."""
    expires_at: datetime | None
    tags: tuple[str, ...]
    metadata: str | None
    payload: str | None
    output: str | None
    error: RunError | None
    idempotency_key: str | None
    idempotency_key_scope: str | None
    max_attempts: int | None
    max_duration: float | None
    version: str | None
    parent_run_id: RunId | None
    root_run_id: RunId | None
    batch_id: BatchId | None
    replay_of: RunId | None
    schedule_id: ScheduleId | None
    is_test: bool
    machine: str | None
    """On which it executes, or has; before its first lease as it was triggered. None: on none."""
    given_machine: str | None
    """As it was triggered, or the one after it ran out of memory; None: its task's."""
    usage_duration: float
    """Seconds for which it has been executed, over all attempts."""
    losses: int
    """How often a worker died or was lost under this run."""
    waits: int
    """How often it suspended."""
    waiting_reason: WaitingReason | None
    attempt_started_at: datetime | None
    """Of the present or last attempt; None while it has not begun."""
    attempts: tuple[AttemptRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescheduling:
    """Another date for a run that is delayed."""

    run_id: RunId
    delay: When


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """A new run with the input of an old one. The fields are those of a `TriggerRequest`; None is what the old run had."""

    run_id: RunId
    replay_of: RunId
    payload: str | None = None
    queue: str | None = None
    concurrency_key: str | None = None
    tags: tuple[str, ...] | None = None
    metadata: str | None = None
    machine: str | None = None
    # From here on None is the task's, as at a trigger: what the old run had is not for another time.
    delay: When | None = None
    limits: tuple[str, ...] | None = None
    priority: float = 0.0
    ttl: float | None = None
    version: str | None = None
    debounce: Debouncing | None = None
    max_attempts: int | None = None
    max_duration: float | None = None
    idempotency: Idempotency | None = None
    is_watched: bool = False
