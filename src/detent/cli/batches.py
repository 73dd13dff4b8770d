"""`detent batches`: look at batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from detent.cli import printing
from detent.cli.calling import call
from detent.cli.options import DEFAULT_ENVIRONMENT, Environment, Json

if TYPE_CHECKING:
    from detent.protocol.batches import BatchRecord

_LABEL_WIDTH = 13

app = typer.Typer(name="batches", help="Look at batches.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Look at batches."""


@app.command()
def get(
    batch_id: Annotated[str, typer.Argument(metavar="BATCH", help="The batch's id.")],
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """Show a batch: how it stands, and the items that could not be triggered."""
    record = call(environment, lambda caller: caller.client.batch.retrieve(batch_id))
    if as_json:
        printing.as_json(record)
        return
    for label, text in _facts(record):
        if text:
            print(f"{label:<{_LABEL_WIDTH}}{text}")
    for item in record.errors:
        print(f"{f'item {item.index}':<{_LABEL_WIDTH}}{item.task_id}: {item.error.message}")
    if record.refused > len(record.errors):
        print(f"and {record.refused - len(record.errors):,} more items that could not be triggered")


def _facts(record: BatchRecord) -> Iterator[tuple[str, str]]:
    yield "batch", record.id
    yield "status", record.status.value + (f" ({record.reason})" if record.reason else "")
    yield "items", f"{len(record.run_ids):,} of {record.run_count:,} given"
    yield "succeeded", f"{record.succeeded:,}"
    yield "failed", f"{record.failed:,}"
    yield "cancelled", f"{record.cancelled:,}" if record.cancelled else ""
    yield "created", f"{record.created_at.astimezone():%Y-%m-%d %H:%M:%S} ({printing.ago(record.created_at)})"
    yield "completed", printing.ago(record.completed_at)
    yield "key", record.idempotency_key or ""
