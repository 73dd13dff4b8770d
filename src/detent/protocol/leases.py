"""Leases: asked for, granted, and handed back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from detent.protocol.execution import Isolation
from detent.protocol.fence import Holder
from detent.protocol.ids import BatchId, RunId, SessionId
from detent.protocol.waits import WaitResult


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """`fence` is fresh and random for each call; every run leased by it carries it. `room` says how many of each kind fit.

    A run that must start alone (it was on the CPU when its process died) is leased only into PROCESS room.
    """

    session_id: SessionId
    fence: int
    room: dict[Isolation, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to execute one attempt, or the rest of one, until the session ends.

    With `is_resumed` the database believes that this session still has the run in memory: `payload` and `metadata` are then
    left out, and `results` holds what it waited for. Otherwise the function starts from its top; with `has_journal` it
    replays (`read_journal`).
    """

    run_id: RunId
    fence: int
    attempt: int
    task_id: str
    isolation: Isolation
    payload: str | None
    is_resumed: bool
    has_journal: bool
    results: tuple[WaitResult, ...]
    created_at: datetime
    started_at: datetime
    queue: str
    concurrency_key: str | None
    priority: float
    tags: tuple[str, ...]
    metadata: str | None
    metadata_applied: str | None = None
    """What of an attempt's updates is in it: JSON of the attempt, and of the latest number of each place."""
    max_attempts: int | None
    max_duration: float | None
    idempotency_key: str | None
    idempotency_key_scope: str | None
    version: str
    parent_run_id: RunId | None
    root_run_id: RunId | None
    batch_id: BatchId | None
    replay_of: RunId | None
    is_test: bool
    machine: str | None = None
    """As given at the trigger, or the one after it ran out of memory; None: its task's."""
    active: float = 0.0
    """Seconds executed under earlier leases, of all attempts."""
    attempt_active: float = 0.0
    """Those of this attempt, up to its latest wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandBack:
    """A run that its worker gives up unfinished. `has_begun`: its code may have executed under this fence."""

    holder: Holder
    has_begun: bool = False
