from __future__ import annotations

import pytest

from detent.errors import NonDeterminismError
from detent.protocol import ids
from detent.protocol.models import JournalEntry, OperationKind
from detent.worker.journal import DATED, Journal

RUN = ids.new_run_id()


def entry(operation: str, kind: OperationKind = OperationKind.CHILD, fingerprint: str = "charge") -> JournalEntry:
    return JournalEntry(operation=operation, kind=kind, fingerprint=fingerprint, ref=ids.new_run_id())


def test_operations_are_numbered_in_the_order_they_are_asked_for() -> None:
    journal = Journal(RUN)
    asked = [journal.next(OperationKind.TRIGGER, "charge")[0] for _ in range(3)]
    assert asked == ["main/0", "main/1", "main/2"]


def test_a_recorded_operation_answers_at_its_place_only() -> None:
    recorded = entry("main/0")
    journal = Journal(RUN, [recorded])
    assert journal.next(OperationKind.CHILD, "charge") == ("main/0", recorded)
    assert journal.next(OperationKind.CHILD, "charge") == ("main/1", None)


def test_a_different_kind_or_task_is_refused_naming_both() -> None:
    with pytest.raises(NonDeterminismError, match=r"child of charge.*time"):
        Journal(RUN, [entry("main/0")]).next(OperationKind.TIME, "time")
    with pytest.raises(NonDeterminismError, match=r"child of charge.*child of refund"):
        Journal(RUN, [entry("main/0")]).next(OperationKind.CHILD, "refund")


def test_replaying_ends_with_the_last_recorded_operation() -> None:
    journal = Journal(RUN, [entry("main/0"), entry("main/1")])
    seen = [journal.is_replaying]
    for _ in range(2):
        journal.next(OperationKind.CHILD, "charge")
        seen.append(journal.is_replaying)
    assert seen == [True, True, False]


def test_a_run_that_leaves_its_recorded_path_is_live_from_there() -> None:
    journal = Journal(RUN, [entry("main/5")])
    journal.next(OperationKind.CHILD, "charge")
    assert not journal.is_replaying


def test_a_recorded_wait_for_a_date_is_found_by_its_mark() -> None:
    journal = Journal(RUN, [entry("main/0", OperationKind.TIME, "time")])
    assert not journal.has(DATED)
    assert Journal(RUN, [entry("main/0u", OperationKind.TIME, "time")]).has(DATED)
