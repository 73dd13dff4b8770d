"""Selections of runs, as `detent.select_runs` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from detent.protocol import ids
from detent.protocol.selection import RunSelection
from detent.protocol.status import RunStatus


def to_fields(selection: RunSelection) -> dict[str, object]:
    """Return the fields of a `detent.run_selection`, as JSON has them."""
    statuses, is_known = _stored_statuses(selection.statuses)
    return {
        "statuses": statuses,
        "is_known": is_known,
        "tasks": selection.task_ids or None,
        "tags": selection.tags or None,
        "queues": selection.queues or None,
        "versions": selection.versions or None,
        "machines": selection.machines or None,
        "parent_id": _hex("run", selection.parent_run_id),
        "batch_id": _hex("batch", selection.batch_id),
        "schedule_id": _hex("sched", selection.schedule_id),
        "bulk_id": _hex("bulk", selection.bulk_id),
        "is_test": selection.is_test,
        "created_after": _date(selection.created_after),
        "created_before": _date(selection.created_before),
    }


def _stored_statuses(wanted: Sequence[RunStatus]) -> tuple[list[str] | None, bool | None]:
    """Return the statuses as they are stored; and of queued runs, whether workers must have registered what they need."""
    stored = {RunStatus.QUEUED if status is RunStatus.PENDING_VERSION else status for status in wanted}
    is_known = None
    if RunStatus.QUEUED in stored and len({RunStatus.QUEUED, RunStatus.PENDING_VERSION} & set(wanted)) == 1:
        is_known = RunStatus.QUEUED in wanted
    return [status.value for status in stored] or None, is_known


def _hex(prefix: str, text: str | None) -> str | None:
    return None if text is None else ids.to_hex(prefix, text)


def _date(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
