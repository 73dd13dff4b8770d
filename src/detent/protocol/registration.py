"""Code as a worker makes it known: a version with its tasks and limits."""

from __future__ import annotations

from dataclasses import dataclass

from detent.protocol.cron import Cron
from detent.protocol.execution import Isolation, OnLost
from detent.protocol.final_hooks import FinalEnd
from detent.protocol.flow import LimitDeclaration
from detent.protocol.retention import RetentionRule


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRegistration:
    task_id: str
    isolation: Isolation
    file_path: str
    queue: str
    retry: str
    """JSON of the retry policy: max_attempts, factor, min_timeout and max_timeout in seconds, randomize."""
    description: str = ""
    max_duration: float | None = None
    ttl: float | None = None
    """Seconds in the queue after which a run that never started expires; None is never."""
    limits: tuple[str, ...] = ()
    """Names of the limits that its runs hold: `task/<id>` for the inline one, then the named ones."""
    on_lost: OnLost = OnLost.RESTART
    final_hooks: tuple[FinalEnd, ...] = ()
    """The ends that have hooks: another worker than the one that executed the run may have to call them."""
    payload_schema: str | None = None
    """JSON Schema of the payload, as JSON text."""
    output_schema: str | None = None
    cron: Cron | None = None
    """When it runs by itself."""
    machine: str | None = None
    oom_machine: str | None = None
    """On which a run is tried once more that ran out of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRegistration:
    """A version of the code: its tasks, queues and limits. With `version` None the engine names it (YYYYMMDD.n); equal code is
    one version."""

    tasks: tuple[TaskRegistration, ...]
    limits: tuple[LimitDeclaration, ...] = ()
    """Queues, inline and named limits. Queues that only a task names need not be here."""
    retention: tuple[RetentionRule, ...] | None = None
    """Replaces the environment's rules, the default among them; None leaves them as they are."""
    version: str | None = None
    machines: tuple[str, ...] = ()
    """Names of machines that the code knows beside the presets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredTask:
    task_id: str
    isolation: Isolation
    file_path: str
    queue: str
    description: str
    version: str
    payload_schema: str | None
    has_live_worker: bool
