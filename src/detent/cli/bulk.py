"""Bulk actions, from the options that select runs to the last of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from detent.cli import printing
from detent.errors import ConfigError

if TYPE_CHECKING:
    from detent.cli.calling import Caller
    from detent.protocol.bulk import BulkRecord
    from detent.sdk.run_query import RunQuery

IDLE_SECONDS = 0.5

Filtered: TypeAlias = Annotated[
    bool, typer.Option("--filter", help="All runs that the options below select, instead of named ones.")
]


def selected(query: RunQuery, *, is_filtered: bool, is_named: bool) -> RunQuery | None:
    """Return the filter that was given; None when runs were named. Raises `ConfigError` for both, for neither, and for a part."""
    if not is_filtered and query:
        raise ConfigError("these options select many runs: add --filter to say that you mean all of them")
    if is_filtered == is_named:
        raise ConfigError("name runs by their ids, or select them with --filter and its options: one of the two")
    if is_filtered and not query:
        raise ConfigError("--filter alone selects every run; add --status, --task, --tag, --since or another")
    return query if is_filtered else None


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
