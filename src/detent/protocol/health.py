"""What stands in the way of the runs of an environment, and what nobody sees to: the facts that `detent doctor` judges."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from detent.protocol.flow import LimitKind
from detent.protocol.ids import RunId
from detent.protocol.retention import RetentionRecord
from detent.protocol.runs import WaitingReason


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerHealth:
    """The runners of a worker that have not ended."""

    name: str
    """Its host and process."""
    version: str
    runners: int
    silence: float
    """Seconds since the latest heartbeat of any of them."""
    is_live: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ForsakenTask:
    """A task that no live worker has, and the number of its runs that are not over."""

    task_id: str
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PausedLimit:
    kind: LimitKind
    name: str
    paused_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UndeclaredLimit:
    """A queue or a limit that triggers have named and no code declares, and the number of runs that wait for it."""

    kind: LimitKind
    name: str
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LateRun:
    """A run that was ready to start long ago."""

    run_id: RunId
    task_id: str
    queued_at: datetime
    reason: WaitingReason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRecord:
    workers: tuple[WorkerHealth, ...]
    forsaken_tasks: tuple[ForsakenTask, ...]
    """Those with the most runs first."""
    paused: tuple[PausedLimit, ...]
    undeclared: tuple[UndeclaredLimit, ...]
    late_runs: tuple[LateRun, ...]
    """Some of them, the oldest first."""
    late_count: int
    miscounted: int
    """Limits of all environments whose counters are not what the runs say."""
    shelves_behind: tuple[str, ...]
    """Tables that have no partition for the present."""
    overdue: tuple[str, ...]
    """Partitions that should be gone for hours."""
    retention: RetentionRecord
