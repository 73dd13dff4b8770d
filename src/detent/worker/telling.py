"""What befell runs, for people: the live lines of `detent dev`."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from detent.worker.attempt import Attempt
from detent.worker.control import Happened

_PAUSE = 0.02
_NO_RUN = contextvars.Context()

Told = tuple[str, str, str, int, float, str]


class EventKind(StrEnum):
    # of runs
    STARTED = "started"
    RESUMED = "resumed"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRIED = "retried"
    """The attempt failed; another follows."""
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    HANDED_BACK = "handed_back"
    SUSPECTED = "suspected"
    """Was on the CPU when its process died."""
    BLOCKING = "blocking"
    """Keeps the event loop of its runner."""
    # of the worker
    UP = "up"
    RUNNER_DIED = "runner_died"
    RUNNER_KILLED = "runner_killed"
    RELOADED = "reloaded"
    NOT_RELOADED = "not_reloaded"
    DATABASE_AWAY = "database_away"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEvent:
    """`run_id` and `task_id` are empty for what concerns the worker as a whole. `seconds` is the attempt's time so far."""

    kind: EventKind
    run_id: str = ""
    task_id: str = ""
    attempt: int = 0
    seconds: float = 0.0
    detail: str = ""


class Teller:
    """Gathers events in a runner and sends a few at a time; does nothing when nobody listens."""

    def __init__(self, send: Callable[[Happened], None], *, is_on: bool) -> None:
        self._send, self._is_on = send, is_on
        self._events: list[Told] = []

    def tell(self, kind: EventKind, attempt: Attempt, detail: str = "") -> None:
        if not self._is_on:
            return
        if not self._events:
            # Outside of the run that is told of: its own timers stand still while it waits.
            asyncio.get_running_loop().call_later(_PAUSE, self.flush, context=_NO_RUN)
        self._events.append(
            (kind.value, attempt.run_id, attempt.task_id, attempt.attempt, round(attempt.elapsed, 4), detail)
        )

    def flush(self) -> None:
        if self._events:
            self._send(Happened(events=tuple(self._events)))
            self._events = []
