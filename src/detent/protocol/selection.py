"""Which runs: the one vocabulary of lists and bulk actions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from detent.protocol.ids import BatchId, BulkId, RunId, ScheduleId
from detent.protocol.status import RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSelection:
    """Which runs. What is empty or None selects nothing out; the rest must all hold. Of several texts a run must have one."""

    statuses: tuple[RunStatus, ...] = ()
    task_ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    parent_run_id: RunId | None = None
    batch_id: BatchId | None = None
    schedule_id: ScheduleId | None = None
    bulk_id: BulkId | None = None
    """Those that a bulk action has cancelled, or made as replays."""
    is_test: bool | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
