"""How long what is over is kept: the rules of an environment, and the partitions that go when their time has come.

What goes, and what is held back because a live run may still ask for it, is told on top of `migrations/0007_retention.sql`.
Every statement takes a bounded number of rows, or waits 50 ms for a lock at most: nobody who reads or completes runs waits for
this. It may be ended at any moment, and any number of processes may do it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeAlias, cast
from uuid import UUID

from detent.engine.db import Db, Row
from detent.protocol.retention import PartitionRecord, RetentionRecord, RetentionRule
from detent.protocol.status import RunStatus

DAYS_AHEAD = 2
"""Few: each look-up of a run visits every partition since the run was made, the empty ones of days to come included."""
Period: TypeAlias = dict[str, object]
"""Of a partition that is due, and how far it has been cleared."""

_MOST_RUNS = 5_000
_FIRST = UUID(int=0)


async def set_retention(db: Db, environment: int, rules: Sequence[RetentionRule] | None) -> None:
    if rules is not None:
        fields = [
            {"task": rule.task_id or "", "status": rule.status or "", "keep_days": rule.keep_days or 0}
            for rule in rules
        ]
        given = {"environment": environment, "rules": json.dumps(fields), "ahead": DAYS_AHEAD}
        await db.call("set_retention", given)


async def read_retention(db: Db, environment: int) -> RetentionRecord:
    rules = await db.call("find_retention_rules", {"environment": environment})
    partitions = await db.call("find_partitions", {})
    return RetentionRecord(rules=tuple(map(_rule, rules)), partitions=tuple(map(_partition, partitions)))


async def let_go(db: Db) -> bool:
    """Make the partitions of the coming days, and drop what is due. False when locks of others stood in the way of some of it."""
    is_done = (
        await _make_partitions(db)
        # The history first: a line is kept while its run is there.
        and await _drop_due(db, "history", lambda period: db.call("clear_history", period))
        and await _drop_due(db, "logs", lambda period: db.call("clear_logs", period))
    )
    while cast("int", (await db.call("forget_past", {"most": _MOST_RUNS}))[0][0]) > 0:
        pass
    return is_done


async def _make_partitions(db: Db) -> bool:
    while (made := (await db.call("make_partition", {"ahead": DAYS_AHEAD}))[0][0]) == "made":
        pass
    return made is None


async def _drop_due(db: Db, parent: str, clear: Callable[[Period], Awaitable[list[Row]]]) -> bool:
    is_dropped = True
    for name, keep_days, starts_at, ends_at in await db.call("find_due_partitions", {"parent": parent}):
        period = {"keep_days": keep_days, "starts_at": starts_at, "ends_at": ends_at, "after": _FIRST, "most": _MOST_RUNS}
        while rows := await clear(period):
            period["after"] = rows[0][0]
        is_dropped &= bool((await db.call("drop_partition", {"name": name}))[0][0])
    return is_dropped


def _rule(row: Row) -> RetentionRule:
    task_id, status, keep_days = row
    return RetentionRule(
        task_id=str(task_id) or None,
        status=RunStatus(str(status)) if status else None,
        keep_days=cast("int", keep_days) or None,
    )


def _partition(row: Row) -> PartitionRecord:
    name, keep_days, starts_at, ends_at, goes_at, rows, size = row
    return PartitionRecord(
        name=str(name),
        keep_days=days if (days := cast("int", keep_days)) > 0 else None,
        starts_at=cast("datetime | None", starts_at),
        ends_at=cast("datetime | None", ends_at),
        goes_at=cast("datetime | None", goes_at),
        rows=cast("int", rows),
        bytes=cast("int", size),
    )
