"""What a project says about retention, and the rules it comes to."""

from __future__ import annotations

from datetime import timedelta

import pytest

from detent import DefinitionError, Retention
from detent.protocol.retention import RetentionRule
from detent.protocol.status import RunStatus


def test_runs_are_kept_for_thirty_days_unless_something_else_is_said() -> None:
    assert Retention().rules() == (RetentionRule(keep_days=30),)


def test_each_entry_is_a_rule() -> None:
    retention = Retention(
        default=None, statuses={"COMPLETED": "1w"}, tasks={"noisy": timedelta(days=1), "charge": {"FAILED": None}}
    )
    assert retention.rules() == (
        RetentionRule(keep_days=None),
        RetentionRule(status=RunStatus.COMPLETED, keep_days=7),
        RetentionRule(task_id="noisy", keep_days=1),
        RetentionRule(task_id="charge", status=RunStatus.FAILED, keep_days=None),
    )


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"default": "12h"}, r"default='12h'\): runs are kept for whole days, 1 to 3650; say"),
        ({"default": 0}, "whole days"),
        ({"default": "4000d"}, "1 to 3650"),
        ({"default": "soon"}, "'soon' is no duration"),
        ({"statuses": "7d"}, "statuses='7d'.: it must be a dict"),
        ({"statuses": {"completed": "7d"}}, "'completed' is no final status; these are CANCELED, COMPLETED"),
        ({"statuses": {"QUEUED": "7d"}}, "'QUEUED' is no final status"),
        ({"tasks": {"noisy": {"FAILED": "90m"}}}, r"tasks\['noisy'\]\['FAILED'\]='90m'\): runs are kept for whole days"),
        ({"tasks": {"": "1d"}}, "'' is no name"),
    ],
)
def test_what_is_no_retention_is_refused_with_its_place(fields: dict[str, object], why: str) -> None:
    with pytest.raises(DefinitionError, match=why):
        Retention(**fields)  # type: ignore[arg-type]  # that is the point
