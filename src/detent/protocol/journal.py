"""The journal of an attempt: steps that it records, and what a replay reads back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from detent.protocol.fence import Holder
from detent.protocol.operations import BEFORE_ANY, OperationKind, Origin, Stamp
from detent.protocol.waits import WaitResult


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What a step came to, as JSON text: its result, or what it raised."""

    origin: Origin
    fingerprint: str
    output: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The step is in the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRead:
    """Asks for a page of a run's journal: the entries after that number."""

    holder: Holder
    after: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """A recorded operation. `fingerprint` says what was asked for (task ids, kind of wait), to notice code that changed.

    `ref` is the public id of what was made (run, batch, waitpoint). `result` is None while a wait is pending, and for
    operations that do not wait; a step has `output` or `error`. `number` is the order of recording in the run.
    """

    operation: str
    kind: OperationKind
    fingerprint: str
    ref: str
    number: int = 0
    attempt: int = 1
    """Of steps, those of earlier attempts are there, too."""
    stamp: Stamp = BEFORE_ANY
    recorded_at: datetime | None = None
    is_cached: bool = False
    is_sealed: bool = True
    """False for a batch whose items had not all been given: it goes on from its first index, without doubling."""
    result: WaitResult | None = None
    output: str | None = None
    """Of a step its result; of a new token its secret."""
    error: str | None = None
