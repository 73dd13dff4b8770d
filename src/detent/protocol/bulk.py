"""Bulk actions: the same done to all runs that a filter selects, as an operation that goes on by itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from detent.protocol.ids import BulkId, RunId
from detent.protocol.selection import RunSelection


class BulkKind(StrEnum):
    """What is done to the runs."""

    CANCEL = "CANCEL"
    REPLAY = "REPLAY"


class BulkStatus(StrEnum):
    """How a bulk action stands."""

    PENDING = "PENDING"
    """It is going on, or about to."""
    COMPLETED = "COMPLETED"
    ABORTED = "ABORTED"
    """It was stopped; what was done by then stays done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkRequest:
    """An action to begin, on runs that exist by then: those selected, or those named.

    The caller makes `bulk_id`, so that a request repeated after a lost reply begins nothing twice.
    """

    bulk_id: BulkId
    kind: BulkKind
    runs: RunSelection | tuple[RunId, ...]
    name: str | None = None
    reason: str = ""
    """Of a cancel."""

    def __post_init__(self) -> None:
        if self.runs == RunSelection() or self.runs == ():
            raise ValueError("a bulk action of no filter at all would be about every run; say which it is about")


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkRecord:
    """A bulk action as it was when it was read. `total` runs were selected when it began.

    `failure` counts those that could not be acted on: they had ended before it was their turn, there is no such run, or its
    queue is full.
    """

    id: BulkId
    kind: BulkKind
    name: str | None
    status: BulkStatus
    total: int
    success: int
    failure: int
    created_at: datetime
    completed_at: datetime | None
    """When it had nothing left to do, or was aborted."""
