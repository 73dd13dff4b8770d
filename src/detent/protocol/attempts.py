"""How an attempt ended, as its worker says, and what became of its run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from detent.protocol.fence import Holder
from detent.protocol.ids import RunId
from detent.protocol.moment import When
from detent.protocol.run_error import RunError
from detent.protocol.status import RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """`has_hooks`: the worker calls final hooks when this is recorded."""

    holder: Holder
    output: str | None
    has_hooks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The attempt raised. `retry_in` is the worker's word: None is never again; the engine still refuses beyond the limit."""

    holder: Holder
    error: RunError
    retry_in: When | None
    has_hooks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RanOutOfMemory:
    """The engine decides whether it is tried again: once, on the machine that its task names for this."""

    holder: Holder
    error: RunError
    has_hooks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut:
    holder: Holder
    error: RunError


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """The attempt could not be made at all (its task is not in this worker): SYSTEM_FAILURE, no retry."""

    holder: Holder
    error: RunError


AttemptOutcome: TypeAlias = Succeeded | Failed | RanOutOfMemory | TimedOut | Broken


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The outcome was recorded. `status` is final, or QUEUED when the run will be tried again."""

    run_id: RunId
    status: RunStatus
