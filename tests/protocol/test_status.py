"""The table of transitions: what may follow what in the life of a run."""

from __future__ import annotations

import pytest

from detent.protocol.status import FAILED, FINAL, HELD, TRANSITIONS, Event, RunStatus


def test_final_statuses_have_no_way_out() -> None:
    assert {before for before, _ in TRANSITIONS}.isdisjoint(FINAL)


def test_every_final_status_can_be_reached() -> None:
    assert set(TRANSITIONS.values()) >= FINAL


def test_every_stored_status_can_be_left_or_is_final() -> None:
    assert {before for before, _ in TRANSITIONS} == set(RunStatus) - FINAL - {RunStatus.PENDING_VERSION}


@pytest.mark.parametrize(
    "status", [status for status in RunStatus if status not in FINAL | {RunStatus.PENDING_VERSION}]
)
def test_every_run_that_has_not_ended_can_be_cancelled(status: RunStatus) -> None:
    assert TRANSITIONS[status, Event.CANCELLED] is RunStatus.CANCELED


@pytest.mark.parametrize("status", sorted(HELD))
def test_every_held_run_can_be_handed_back_and_ended(status: RunStatus) -> None:
    assert TRANSITIONS[status, Event.HANDED_BACK] is RunStatus.QUEUED
    assert TRANSITIONS[status, Event.SUCCEEDED] is RunStatus.COMPLETED


@pytest.mark.parametrize("status", list(RunStatus))
def test_flags_agree(status: RunStatus) -> None:
    assert status.is_final == (status in FINAL)
    assert status.is_failed == (status in FAILED)
    assert sum([status.is_failed, status.is_success, status.is_cancelled]) == int(status.is_final)
