"""`detent retention`: how long runs are kept after their end, and what goes next."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from detent.cli import database, printing
from detent.cli.options import DEFAULT_ENVIRONMENT, Environment, Json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from detent.protocol.retention import PartitionRecord, RetentionRecord, RetentionRule

app = typer.Typer()


@app.command()
def retention(environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False) -> None:
    """Show how long runs are kept after their end, where they lie, and what goes when."""
    found = asyncio.run(_read(environment))
    if as_json:
        printing.as_json(found)
        return
    _show_rules(found.rules, environment)
    print()
    printing.table(["PARTITION", "KEPT", "FROM", "UNTIL", "GOES", "ROWS", "SIZE"], map(_partition, found.partitions))


def _show_rules(rules: Sequence[RetentionRule], environment: str) -> None:
    if rules:
        printing.table(["TASK", "STATUS", "KEPT"], map(_rule, rules))
    else:
        print(f'no worker has said how long runs of environment "{environment}" are kept: 30 days')


def _rule(rule: RetentionRule) -> list[str]:
    return [rule.task_id or "any", rule.status or "any", _kept(rule.keep_days)]


def _partition(partition: PartitionRecord) -> list[str]:
    kept = _kept(partition.keep_days) if not partition.name.endswith("_held") else "as needed"
    dates = map(_date, (partition.starts_at, partition.ends_at, partition.goes_at))
    return [partition.name, kept, *dates, f"{partition.rows:,}", printing.size(partition.bytes)]


def _kept(days: int | None) -> str:
    return f"{days} d" if days is not None else "for ever"


def _date(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d") if moment is not None else ""


async def _read(environment: str) -> RetentionRecord:
    from detent.cli.calling import calling

    async with database.opened() as dsn, calling(dsn, environment) as caller:
        return await caller.backend.read_retention()
