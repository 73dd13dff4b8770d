"""Waits of a run: what is waited for, how the wait stands, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from detent.protocol.fence import Holder
from detent.protocol.idempotency import WaitKey
from detent.protocol.ids import WaitpointId
from detent.protocol.moment import When
from detent.protocol.operations import Origin
from detent.protocol.run_error import RunError
from detent.protocol.runs import RunOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeWait:
    """Wait for a moment. With a live `key`, for the moment that it stands for: at once, when that has come."""

    origin: Origin
    until: When
    waitpoint_id: WaitpointId
    key: WaitKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWait:
    """Wait for a token, which exists."""

    origin: Origin
    waitpoint_id: WaitpointId


Wait: TypeAlias = TimeWait | TokenWait


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitResult:
    """What a wait came to. `child` is set for CHILD, `output` (JSON text) for TOKEN; a batch's results are read with
    `read_batch_results`.

    `error` is set when the wait itself failed: the batch was aborted, the token timed out.
    """

    operation: str
    child: RunOutcome | None = None
    output: str | None = None
    error: RunError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """What the run waits for is not there yet. It keeps its slot; the result is announced, and comes with `collect`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended:
    """The run is WAITING and holds no slot; its result comes with the lease that resumes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspension:
    """A run of which nothing goes on: all its code stands in waits. `until`: a timer in its memory ends the first of them then.

    `delivered` are operations whose results came with `collect`, and were given to the code.
    """

    holder: Holder
    until: timedelta | None = None
    delivered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Results that an executing run waits for."""

    holder: Holder
    results: tuple[WaitResult, ...]
