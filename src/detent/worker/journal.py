"""What an attempt has done so far, and what its replay answers from.

Each durable operation has an id, a path: the asyncio task that asks for it, then its number there. Linear form: one segment, one
counter a run, so operations must be asked for in the same order again.
"""

from __future__ import annotations

from collections.abc import Iterable

from detent.errors import NonDeterminismError
from detent.protocol.ids import RunId
from detent.protocol.models import JournalEntry, OperationKind

ROOT = "main"
DATED = "u"
"""Marks a wait for a date: only those longer than a few seconds are recorded, which differs from one replay to the next."""


class OperationPath:
    """The place in a run's code from which operations are asked for."""

    __slots__ = ("_count", "_segment")

    def __init__(self, segment: str = ROOT) -> None:
        self._segment, self._count = segment, 0

    def next(self, mark: str = "") -> str:
        operation = self.peek(mark)
        self._count += 1
        return operation

    def peek(self, mark: str = "") -> str:
        return f"{self._segment}/{self._count}{mark}"


class Journal:
    """Hands out operations in order, with what was recorded for them."""

    __slots__ = ("_is_live", "_path", "_recorded", "_run_id")

    def __init__(self, run_id: RunId, entries: Iterable[JournalEntry] = ()) -> None:
        self._run_id = run_id
        self._path = OperationPath()
        self._recorded = {entry.operation: entry for entry in entries}
        self._is_live = not self._recorded

    @property
    def is_replaying(self) -> bool:
        """Whether the code has not yet reached the last operation that was recorded."""
        return not self._is_live

    def next(self, kind: OperationKind, fingerprint: str, mark: str = "") -> tuple[str, JournalEntry | None]:
        """Return the id of the operation that the code asks for now, and its record; raises `NonDeterminismError`."""
        operation = self._path.next(mark)
        return operation, self._take(operation, kind, fingerprint)

    def has(self, mark: str) -> bool:
        """Whether an operation with this mark was recorded at this place."""
        return self._path.peek(mark) in self._recorded

    def _take(self, operation: str, kind: OperationKind, fingerprint: str) -> JournalEntry | None:
        entry = self._recorded.pop(operation, None)
        self._is_live = not self._recorded or entry is None
        if entry is not None and (entry.kind, entry.fingerprint) != (kind, fingerprint):
            recorded = _describe(entry.kind, entry.fingerprint)
            raise NonDeterminismError(self._run_id, operation, recorded, _describe(kind, fingerprint))
        return entry


def _describe(kind: OperationKind, fingerprint: str) -> str:
    return f"{kind.value} of {fingerprint}" if fingerprint else kind.value
