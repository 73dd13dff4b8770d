"""The life of a run: its statuses, and the one table of legal transitions.

The guard in Python (`lifecycle`), the constraint trigger in SQL (`migrations`), the drawing in ARCHITECTURE.md and the
property test are all derived from `TRANSITIONS`; deleting a line makes a test fail.
"""

from __future__ import annotations

from enum import StrEnum


class RunStatus(StrEnum):
    """One status a run. The values are the wire's own spelling."""

    DELAYED = "DELAYED"
    QUEUED = "QUEUED"
    DEQUEUED = "DEQUEUED"
    EXECUTING = "EXECUTING"
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    CRASHED = "CRASHED"
    SYSTEM_FAILURE = "SYSTEM_FAILURE"
    EXPIRED = "EXPIRED"
    TIMED_OUT = "TIMED_OUT"
    PENDING_VERSION = "PENDING_VERSION"
    """Never stored: what a QUEUED run shows while no worker has registered its task."""

    @property
    def is_final(self) -> bool:
        return self in FINAL

    @property
    def is_failed(self) -> bool:
        return self in FAILED

    @property
    def is_success(self) -> bool:
        return self is RunStatus.COMPLETED

    @property
    def is_cancelled(self) -> bool:
        return self is RunStatus.CANCELED


class TokenStatus(StrEnum):
    """How a token stands."""

    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    TIMED_OUT = "TIMED_OUT"


class BatchStatus(StrEnum):
    """How a batch stands."""

    PENDING = "PENDING"
    """Not all of its items were given."""
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    """Every run is over, however it ended."""
    PARTIAL_FAILED = "PARTIAL_FAILED"
    """As PROCESSING, but some items could not be triggered."""
    ABORTED = "ABORTED"
    """The rest of its items did not come, or none could be triggered."""


class Event(StrEnum):
    """What happens to a run."""

    DELAY_ENDED = "delay_ended"
    LEASED = "leased"
    STARTED = "started"
    WAITED = "waited"
    WOKEN = "woken"
    HANDED_BACK = "handed_back"
    RETRIED = "retried"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CRASHED = "crashed"
    BROKEN = "broken"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


_S, _E = RunStatus, Event

FINAL = frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELED, _S.CRASHED, _S.SYSTEM_FAILURE, _S.EXPIRED, _S.TIMED_OUT})
FAILED = frozenset({_S.FAILED, _S.CRASHED, _S.SYSTEM_FAILURE, _S.EXPIRED, _S.TIMED_OUT})
HELD = frozenset({_S.DEQUEUED, _S.EXECUTING})
"""Statuses in which a worker executes the run and its slot is taken."""

TRANSITIONS: dict[tuple[RunStatus, Event], RunStatus] = {
    (_S.DELAYED, _E.DELAY_ENDED): _S.QUEUED,
    (_S.DELAYED, _E.CANCELLED): _S.CANCELED,
    (_S.QUEUED, _E.LEASED): _S.DEQUEUED,
    (_S.QUEUED, _E.WAITED): _S.WAITING,
    (_S.QUEUED, _E.CANCELLED): _S.CANCELED,
    (_S.QUEUED, _E.EXPIRED): _S.EXPIRED,
    (_S.DEQUEUED, _E.STARTED): _S.EXECUTING,
    (_S.EXECUTING, _E.WAITED): _S.WAITING,
    (_S.DEQUEUED, _E.WAITED): _S.WAITING,
    (_S.WAITING, _E.WOKEN): _S.QUEUED,
    (_S.WAITING, _E.CANCELLED): _S.CANCELED,
    (_S.DEQUEUED, _E.HANDED_BACK): _S.QUEUED,
    (_S.EXECUTING, _E.HANDED_BACK): _S.QUEUED,
    (_S.DEQUEUED, _E.RETRIED): _S.QUEUED,
    (_S.EXECUTING, _E.RETRIED): _S.QUEUED,
    (_S.DEQUEUED, _E.SUCCEEDED): _S.COMPLETED,
    (_S.EXECUTING, _E.SUCCEEDED): _S.COMPLETED,
    (_S.DEQUEUED, _E.FAILED): _S.FAILED,
    (_S.EXECUTING, _E.FAILED): _S.FAILED,
    (_S.DEQUEUED, _E.CRASHED): _S.CRASHED,
    (_S.EXECUTING, _E.CRASHED): _S.CRASHED,
    (_S.DEQUEUED, _E.BROKEN): _S.SYSTEM_FAILURE,
    (_S.EXECUTING, _E.BROKEN): _S.SYSTEM_FAILURE,
    (_S.DEQUEUED, _E.TIMED_OUT): _S.TIMED_OUT,
    (_S.EXECUTING, _E.TIMED_OUT): _S.TIMED_OUT,
    (_S.DEQUEUED, _E.CANCELLED): _S.CANCELED,
    (_S.EXECUTING, _E.CANCELLED): _S.CANCELED,
}


def drawing() -> str:
    """Return the table as a Mermaid state diagram; ARCHITECTURE.md holds it, and a test compares."""
    lines = [f"    {before} --> {after}: {event}" for (before, event), after in TRANSITIONS.items()]
    ends = [f"    {status} --> [*]" for status in RunStatus if status in FINAL]
    return "\n".join(["stateDiagram-v2", "    [*] --> QUEUED: triggered", "    [*] --> DELAYED: triggered", *lines, *ends])
