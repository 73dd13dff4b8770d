"""What an attempt has done so far, what its replay answers from, and in which order.

A run's code is deterministic but for the order in which it is given its answers. So this order is recorded: each operation
carries how many answers the code had been given when it asked, and which were the last (`Stamp`). A replay gives them in the same
order again, each only after everything has been asked for that had been asked for by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from detent.errors import JournalFullError, NonDeterminismError
from detent.protocol.ids import RunId
from detent.protocol.journal import JournalEntry
from detent.protocol.operations import OperationKind, Stamp
from detent.protocol.waits import WaitResult
from detent.worker.path import parent_of

DATED = "u"
"""Marks a wait for a date: only those longer than a few seconds are recorded, which differs from one replay to the next."""
ABANDONED = "-"
"""Marks in the order of answers an operation whose answer the code gave up (a timeout, a cancelled task)."""
FAILED = "!"
"""Marks one that was not recorded, for it was refused: a replay asks again."""
MOST_OPERATIONS = 10_000
_MARKS = (ABANDONED, FAILED)


class Journal:
    def __init__(
        self, run_id: RunId, attempt: int = 1, entries: Iterable[JournalEntry] = (), *, most: int = MOST_OPERATIONS
    ) -> None:
        present = list(entries)
        with_nested = [entry for entry in present if entry.attempt == attempt]
        own = _without_nested(with_nested)
        self._run_id, self._most = run_id, most
        self._recorded = {entry.operation: entry for entry in own}
        self._kept = {(e.operation, e.fingerprint): e for e in present if e.attempt != attempt}
        self._asked_in = Counter(parent_of(entry.operation) for entry in own) if own else None
        self._unasked = _Unasked(own) if own else None
        self._order = _order_of(with_nested, known={entry.operation for entry in own})
        self._marked = {answer[1:]: answer[0] for answer in self._order if answer[0] in _MARKS}
        self._given = 0
        self._confirmed = len(self._order)
        self._count = len(own)
        self._is_orderly = not own
        self.moment: datetime | None = None
        """When the latest of the operations was recorded that the code has asked for again."""

    # ---- what the code asks for ----

    @property
    def is_replaying(self) -> bool:
        """Whether something recorded was not asked for, or not given to the code, yet."""
        return bool(self._recorded) or self._given < len(self._order)

    def take(self, operation: str, kind: OperationKind, fingerprint: str) -> JournalEntry | None:
        """Return the record of an operation that the code asks for now; raises `NonDeterminismError`."""
        entry = self._recorded.pop(operation, None)
        if entry is None:
            self._refuse_another_way(operation, kind, fingerprint)
            self._count += 1
            if self._count > self._most:
                raise JournalFullError(self._run_id, self._most)
            return None
        if self._unasked is not None:
            self._unasked.take(entry.stamp.answers)
        self.moment = entry.recorded_at or self.moment
        if (entry.kind, entry.fingerprint) != (kind, fingerprint):
            recorded = describe(entry.kind, entry.fingerprint, operation)
            raise NonDeterminismError(self._run_id, operation, recorded, describe(kind, fingerprint, operation))
        return entry

    def complete(self, result: WaitResult) -> bool:
        """Put what has come into the record of a wait that the code has not asked for again yet; False when there is none."""
        entry = self._recorded.get(result.operation)
        if entry is None:
            return False
        self._recorded[result.operation] = replace(entry, result=result)
        return True

    @property
    def unasked(self) -> list[JournalEntry]:
        """What was recorded and has not been asked for again, in the order of recording."""
        return sorted(self._recorded.values(), key=lambda entry: entry.number)

    def _refuse_another_way(self, operation: str, kind: OperationKind, fingerprint: str) -> None:
        """What was not recorded at this place was refused or abandoned there, or else the code goes another way now."""
        path = parent_of(operation)
        if self._asked_in is None or not self._asked_in[path] or operation in self._marked:
            return
        later = next((entry for entry in self.unasked if parent_of(entry.operation) == path), None)
        if later is not None:
            recorded = describe(later.kind, later.fingerprint, later.operation)
            asked = f"{describe(kind, fingerprint, operation)} as {operation}"
            raise NonDeterminismError(self._run_id, later.operation, recorded, asked)

    def was_abandoned(self, operation: str) -> bool:
        """Whether the code gave this operation up, and it was not even recorded."""
        return self._marked.get(operation) == ABANDONED

    def kept(self, operation: str, fingerprint: str) -> JournalEntry | None:
        """Return a step that an earlier attempt has done."""
        return self._kept.get((operation, fingerprint))

    def has(self, operation: str) -> bool:
        return operation in self._recorded

    def has_beyond(self, path: str, asked: int) -> bool:
        """Whether more operations of this path were recorded than the code has asked for: what it does here was done before."""
        return self._asked_in is not None and asked < self._asked_in[path]

    @property
    def is_nearly_full(self) -> bool:
        return self._count == self._most * 4 // 5

    # ---- in which order it is answered ----

    @property
    def next_answer(self) -> str | None:
        """The operation whose answer the code was given next, as far as that is recorded; None: the order is free."""
        return self._order[self._given] if self._given < len(self._order) else None

    @property
    def is_due(self) -> bool:
        """Whether everything has been asked for that had been asked for before the next answer was given."""
        return self._unasked is None or self._unasked.lowest > self._given

    def waive(self) -> None:
        """Wait no longer for what was not asked for."""
        self._unasked = None

    def give(self, answer: str) -> None:
        """Note that the code was given an answer."""
        if self.next_answer != answer:
            # Live, or out of its turn. What was recorded of the order from here on holds no more: it is said again.
            self._confirmed = min(self._confirmed, self._given)
            if self._given < len(self._order) and answer in self._order[self._given :]:
                self._order.reverse()
                self._order.remove(answer)
                self._order.reverse()
            self._order.insert(self._given, answer)
        self._given += 1

    def give_up(self, operation: str) -> None:
        """Note that the code has abandoned an operation, perhaps in the moment in which it was given the answer."""
        if self._given and self._order[self._given - 1] == operation:
            self._order[self._given - 1] = ABANDONED + operation
            self._confirmed = min(self._confirmed, self._given - 1)
        else:
            self.give(ABANDONED + operation)

    def fail(self, operation: str) -> None:
        """Note that an operation was refused, and is not recorded."""
        self.give(FAILED + operation)

    def skip(self) -> None:
        """Pass over the next answer."""
        self._given += 1

    def stamp(self, outstanding: int) -> Stamp:
        """Return the stamp of an operation that is asked for while so many others have no answer yet."""
        self._is_orderly = self._is_orderly and not outstanding
        if self._given <= self._confirmed or (self._is_orderly and self._is_plain_next):
            return Stamp(answers=self._given)
        return Stamp(answers=self._given, seen=tuple(self._order[self._confirmed : self._given]))

    @property
    def _is_plain_next(self) -> bool:
        """Whether the order of recording tells of the answers since the last stamp: there was one, and it was not given up."""
        return self._given == self._confirmed + 1 and self._order[self._confirmed][0] not in _MARKS

    def confirm(self, stamp: Stamp) -> None:
        """An operation with this stamp is recorded."""
        self._confirmed = max(self._confirmed, stamp.answers)


class _Unasked:
    """How many operations were asked for after so many answers, and have not been asked for again."""

    def __init__(self, entries: Iterable[JournalEntry]) -> None:
        self._counts = Counter(entry.stamp.answers for entry in entries)
        self._levels = sorted(self._counts, reverse=True)

    def take(self, answers: int) -> None:
        self._counts[answers] -= 1

    @property
    def lowest(self) -> float:
        while self._levels and not self._counts[self._levels[-1]]:
            self._levels.pop()
        return self._levels[-1] if self._levels else float("inf")


def _without_nested(entries: Sequence[JournalEntry]) -> list[JournalEntry]:
    """Leave out what was asked for inside of steps that are done: a replay does not execute their bodies."""
    bodies = {f"{entry.operation}/" for entry in entries if entry.kind is OperationKind.STEP}
    if not bodies:
        return list(entries)
    return [entry for entry in entries if not any(body in bodies for body in _prefixes(entry.operation))]


def _prefixes(operation: str) -> Iterable[str]:
    return (operation[: i + 1] for i, letter in enumerate(operation) if letter == "/")


def _order_of(entries: Sequence[JournalEntry], *, known: Collection[str]) -> list[str]:
    """Return the operations in the order in which the code was given their answers; those that are not *known* as
    failed, which are passed over.

    Stamps count the answers to operations inside of steps, too, so these have their place in the order.
    """
    by_number = sorted(entries, key=lambda entry: entry.number)
    said: dict[int, str] = {}
    for entry in by_number:
        seen = entry.stamp.seen or ()
        said.update(enumerate(seen, entry.stamp.answers - len(seen)))
    # Only code that did one thing at a time says nothing: its answers came in the order of recording.
    listed = {_operation_of(answer) for answer in said.values()}
    unsaid = (entry.operation for entry in by_number if entry.operation not in listed)
    most = max((entry.stamp.answers for entry in entries), default=0)
    order = [answer for place in range(most) if (answer := said.get(place) or next(unsaid, None)) is not None]
    return [answer if answer in known or answer[0] in _MARKS else FAILED + answer for answer in order]


def _operation_of(answer: str) -> str:
    return answer[1:] if answer[0] in _MARKS else answer


def describe(kind: OperationKind, fingerprint: str, operation: str = "") -> str:
    """Return what is asked for, in words.

    >>> describe(OperationKind.CHILD, "charge"), describe(OperationKind.STEP, "5f1c", "main/price#0")
    ('child of charge', 'step "price" with arguments 5f1c')
    """
    if kind is OperationKind.STEP:
        name = operation.rpartition("/")[2].rpartition("#")[0]
        return f'step "{name}" with arguments {fingerprint}'
    if kind in {OperationKind.TRIGGER, OperationKind.CHILD}:
        return f"{kind.value} of {fingerprint}"
    return kind.value
