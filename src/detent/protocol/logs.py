"""Lines that a run logs: as it sends them, and as they are read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from detent.protocol.fence import Holder


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    holder: Holder
    attempt: int
    place: str
    """The operation of the run's journal that comes next where the line was written."""
    number: int
    """Counts the lines of a place from 0: a line sent twice, or written again by a replay, is kept once."""
    at: datetime
    level: str
    message: str
    fields: str | None = None
    """JSON text of an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLog:
    attempt: int
    at: datetime
    level: str
    message: str
    fields: str | None
