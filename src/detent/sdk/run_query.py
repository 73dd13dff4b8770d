"""Which runs a list or a bulk action is about, as callers say it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypedDict, TypeVar

from detent.duration import Duration, parse
from detent.protocol import ids
from detent.protocol.ids import BatchId, BulkId, RunId, ScheduleId
from detent.protocol.status import RunStatus
from detent.sdk import spelling
from detent.sdk.options import aware

if TYPE_CHECKING:
    from detent.protocol.selection import RunSelection

Id = TypeVar("Id")


class RunQuery(TypedDict, total=False):
    """Which runs: those given together must all hold, and what is given as None counts as not given.

    - `status`, `task_id`, `tags`, `queue`, `version`, `machine`: one or several; a run must have one of them. A task's own
      queue is `"task/<id>"`; the machine is that of `run.machine`.
    - `parent_run_id`, `batch_id`, `schedule_id`: whose child it is, the batch that it belongs to, the schedule that made it.
    - `bulk_id`: a bulk action that has cancelled it, or made it as a replay.
    - `is_test`: whether it is one of a test.
    - `created_after`, `created_before`: aware datetimes.
    - `period`: a `Duration` before now, by the clock at the call; instead of `created_after`.
    """

    status: RunStatus | str | Iterable[RunStatus | str] | None
    task_id: str | Iterable[str] | None
    tags: str | Iterable[str] | None
    queue: str | Iterable[str] | None
    version: str | Iterable[str] | None
    machine: str | Iterable[str] | None
    parent_run_id: str | None
    batch_id: str | None
    schedule_id: str | None
    bulk_id: str | None
    is_test: bool | None
    created_after: datetime | None
    created_before: datetime | None
    period: Duration | None


def to_selection(query: RunQuery) -> RunSelection:
    """Return what *query* selects. Raises `TypeError` for a field that there is not, and `ValueError` for a bad value."""
    from detent.protocol.selection import RunSelection

    for name in query:
        if name not in RunQuery.__annotations__:
            raise TypeError(f"unknown filter {name!r}{spelling.hint(name, RunQuery.__annotations__)}")
    return RunSelection(
        statuses=_statuses(query.get("status")),
        task_ids=_texts(query.get("task_id")),
        tags=_texts(query.get("tags")),
        queues=_texts(query.get("queue")),
        versions=_texts(query.get("version")),
        machines=_texts(query.get("machine")),
        parent_run_id=_id(RunId, "run", query.get("parent_run_id")),
        batch_id=_id(BatchId, "batch", query.get("batch_id")),
        schedule_id=_id(ScheduleId, "sched", query.get("schedule_id")),
        bulk_id=_id(BulkId, "bulk", query.get("bulk_id")),
        is_test=query.get("is_test"),
        created_after=_after(query.get("created_after"), query.get("period")),
        created_before=_aware("created_before", query.get("created_before")),
    )


def _statuses(names: RunStatus | str | Iterable[RunStatus | str] | None) -> tuple[RunStatus, ...]:
    return tuple(_status(name) for name in _texts(names))


def _status(name: str) -> RunStatus:
    try:
        return RunStatus(name)
    except ValueError:
        known = [status.value for status in RunStatus]
        raise ValueError(f"{name!r} is no status{spelling.hint(name, known)}") from None


def _texts(values: str | Iterable[str] | None) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values or ())


def _after(moment: datetime | None, period: Duration | None) -> datetime | None:
    if period is None:
        return _aware("created_after", moment)
    if moment is not None:
        raise TypeError("created_after and period say the same; leave one of them out")
    return datetime.now(UTC) - parse(period)


def _aware(name: str, moment: datetime | None) -> datetime | None:
    return None if moment is None else aware(name, moment)


def _id(of: Callable[[str], Id], prefix: str, text: str | None) -> Id | None:
    if text is None:
        return None
    ids.decode(prefix, text)
    return of(text)
