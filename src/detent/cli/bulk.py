"""Bulk actions, from the options that select runs to the last of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from detent.cli import printing
from detent.duration import parse
from detent.errors import ConfigError

if TYPE_CHECKING:
    from detent.cli.calling import Caller
    from detent.protocol.bulk import BulkRecord
    from detent.sdk.bulk import RunQuery

IDLE_SECONDS = 0.5

Filtered: TypeAlias = Annotated[
    bool, typer.Option("--filter", help="All runs that the options below select, instead of named ones.")
]
Statuses: TypeAlias = Annotated[list[str] | None, typer.Option("--status", help="With this status; may be repeated.")]
Tasks: TypeAlias = Annotated[list[str] | None, typer.Option("--task", help="Of this task; may be repeated.")]
Tags: TypeAlias = Annotated[list[str] | None, typer.Option("--tag", help="With this tag; may be repeated: all of them.")]
Since: TypeAlias = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Made after this date, or so long ago at most (2h, 7d).")
]
Until: TypeAlias = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Made before this date, or so long ago at least.")
]


def query(
    *,
    is_filtered: bool,
    is_named: bool,
    statuses: list[str] | None,
    tasks: list[str] | None,
    tags: list[str] | None,
    since: str | None,
    until: str | None,
) -> RunQuery | None:
    """Return the filter that was given; None when runs were named. Raises `ConfigError` for both, for neither, and for a part."""
    given: RunQuery = {}
    if statuses:
        given["status"] = [status.upper() for status in statuses]
    if tasks:
        given["task_id"] = tasks
    if tags:
        given["tags"] = tags
    if since:
        given["created_after"] = _moment("--since", since)
    if until:
        given["created_before"] = _moment("--until", until)
    if not is_filtered and given:
        raise ConfigError("these options select many runs: add --filter to say that you mean all of them")
    if is_filtered == is_named:
        raise ConfigError("name runs by their ids, or select them with --filter and its options: one of the two")
    if is_filtered and not given:
        raise ConfigError("--filter alone selects every run; add --status, --task, --tag, --since or --until")
    return given if is_filtered else None


async def carry_out(caller: Caller, begin: Callable[[], Awaitable[BulkRecord]]) -> BulkRecord:
    """Begin a bulk action and return it when it is over, showing how far it is.

    This process takes its part in it: no worker need be running.
    """
    record = await begin()
    while record.completed_at is None:
        _show_progress(record)
        if not await caller.carry_on():
            await asyncio.sleep(IDLE_SECONDS)
        record = await caller.client.runs.bulk.retrieve(record.id)
    _show_progress(record)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return record


def show(record: BulkRecord, *, done: str, as_json: bool) -> None:
    """Print what became of a bulk action; *done* says it of one run."""
    if as_json:
        printing.as_json(record)
        return
    print(f"{record.id}: {record.success:,} of {record.total:,} runs {done}")
    if record.failure:
        print(f"{record.failure:,} had ended before, are not there, or their queue is full")


def _show_progress(record: BulkRecord) -> None:
    if sys.stderr.isatty():
        print(f"\r{record.success + record.failure:,} of {record.total:,} runs", end="", file=sys.stderr, flush=True)


def _moment(option: str, text: str) -> datetime:
    try:
        return datetime.now(UTC) - parse(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{option} {text!r} is neither a date nor a duration; write 2026-01-31, 2026-01-31T12:00 or 2h"
        ) from None
    return moment if moment.tzinfo else moment.astimezone()
