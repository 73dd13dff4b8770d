"""What an event means for a run: pure decisions from the table in `protocol/status.py`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from detent.errors import DetentError
from detent.protocol import run_error
from detent.protocol.attempts import AttemptOutcome, Broken, Failed, RanOutOfMemory, Succeeded, TimedOut
from detent.protocol.fence import Holder
from detent.protocol.moment import When
from detent.protocol.run_error import ErrorCode
from detent.protocol.status import FINAL, TRANSITIONS, Event, RunStatus


class IllegalTransitionError(DetentError):
    def __init__(self, status: RunStatus, event: Event) -> None:
        super().__init__(f"a run that is {status} cannot be {event}; the table of transitions has no such line")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """What to write for an outcome: the final status, or with `retry` another attempt as long as some are left."""

    holder: Holder
    status: RunStatus
    output: str | None = None
    error: str | None = None
    retry: When | None = None
    has_hooks: bool | None = None
    """Whether the worker calls final hooks; None: the engine knows from the task whether there are any."""
    is_oom: bool = False
    """It ran out of memory: another attempt only on the machine that its task names for this, if it was not on it."""
    lingers: bool = False
    """The code may still be running: its slot stays taken until the worker says that it has ended."""


def after(status: RunStatus, event: Event) -> RunStatus:
    """Return the status that follows; raises `IllegalTransitionError` when the table has no such line."""
    try:
        return TRANSITIONS[status, event]
    except KeyError:
        raise IllegalTransitionError(status, event) from None


def after_attempt(outcome: AttemptOutcome) -> Transition:
    """Return the transition of a run whose attempt came to *outcome*."""
    match outcome:
        case Succeeded():
            return Transition(
                holder=outcome.holder,
                status=_ended(Event.SUCCEEDED),
                output=outcome.output,
                has_hooks=outcome.has_hooks,
            )
        case Failed():
            # A task whose `catch_error` fails is at fault itself, and not the work that it was asked about.
            event = Event.CRASHED if outcome.error.code == ErrorCode.CATCH_ERROR else Event.FAILED
            error = run_error.to_json(outcome.error)
            return Transition(
                holder=outcome.holder,
                status=_ended(event),
                error=error,
                retry=outcome.retry_in,
                has_hooks=outcome.has_hooks,
            )
        case RanOutOfMemory():
            return Transition(
                holder=outcome.holder,
                status=_ended(Event.CRASHED),
                error=run_error.to_json(outcome.error),
                has_hooks=outcome.has_hooks,
                is_oom=True,
            )
        case TimedOut():
            error = run_error.to_json(outcome.error)
            return Transition(holder=outcome.holder, status=_ended(Event.TIMED_OUT), error=error, lingers=True)
        case Broken():
            return Transition(holder=outcome.holder, status=_ended(Event.BROKEN), error=run_error.to_json(outcome.error))
        case _:
            assert_never(outcome)


def seconds(when: When | None) -> float | None:
    """Return a moment relative to the database's clock, or None when it is a date."""
    return max(0.0, when.total_seconds()) if isinstance(when, timedelta) else None


def date(when: When | None) -> str | None:
    return when.isoformat() if isinstance(when, datetime) else None


def _ended(event: Event) -> RunStatus:
    status = after(RunStatus.EXECUTING, event)
    if status not in FINAL:
        raise IllegalTransitionError(RunStatus.EXECUTING, event)
    return status
