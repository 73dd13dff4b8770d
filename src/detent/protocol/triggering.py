"""Triggering a run: what is asked, and the run that stands for it."""

from __future__ import annotations

from dataclasses import dataclass

from detent.protocol.flow import Debouncing
from detent.protocol.idempotency import Idempotency
from detent.protocol.ids import RunId
from detent.protocol.moment import When


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerRequest:
    """One run to make. The caller makes `run_id`, so that a request repeated after a lost reply does not double."""

    run_id: RunId
    task_id: str
    payload: str | None = None
    """JSON text; None when the task takes no payload."""
    is_validated: bool = False
    """True when the caller held the task and has validated; else the engine checks against the registered JSON Schema."""
    delay: When | None = None
    queue: str | None = None
    """None is the queue that the task has registered, or its own."""
    concurrency_key: str | None = None
    limits: tuple[str, ...] | None = None
    """Names of limits that replace the task's named ones; its inline one stays."""
    priority: float = 0.0
    ttl: float | None = None
    """Seconds in the queue after which a run that never started expires; 0 is never, None is the task's."""
    version: str | None = None
    """Only workers of this version may run it."""
    debounce: Debouncing | None = None
    max_attempts: int | None = None
    max_duration: float | None = None
    """Seconds."""
    machine: str | None = None
    """None is the task's."""
    tags: tuple[str, ...] = ()
    metadata: str | None = None
    idempotency: Idempotency | None = None
    replay_of: RunId | None = None
    is_test: bool = False
    is_watched: bool = False
    """The caller will wait for the result from outside a run: its end is announced (`Backend.listen`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Triggered:
    """`run_id` is the run that stands for the request: a new one, or with `is_cached` the one its key already had."""

    run_id: RunId
    is_cached: bool = False
