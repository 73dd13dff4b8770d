"""Final hooks: which ends of a run have them, and the leases under which they are called."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from detent.protocol.ids import SessionId
from detent.protocol.leases import Lease
from detent.protocol.run_error import RunError
from detent.protocol.status import RunStatus


class FinalEnd(StrEnum):
    """The ends of a run that may have hooks."""

    SUCCESS = "success"
    FAILURE = "failure"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class HooksRequest:
    """`fence` is fresh and random for each call."""

    session_id: SessionId
    fence: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HooksLease:
    """The right to call the final hooks of a run that is over, and how it ended."""

    lease: Lease
    status: RunStatus
    output: str | None
    error: RunError | None
    number: int
    """Counts such leases of the run from 1."""
