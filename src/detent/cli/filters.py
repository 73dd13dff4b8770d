"""The options that select runs, for each command that lists them or acts on all of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeAlias, cast

import typer

from detent.cli.grouping import Group
from detent.duration import parse
from detent.errors import ConfigError

if TYPE_CHECKING:
    from detent.sdk.run_query import RunQuery

Query: TypeAlias = "RunQuery"
"""What a command with these options is given. A name that is there when its signature is read, without the SDK."""
Texts: TypeAlias = list[str] | None
Text: TypeAlias = str | None

_OPTIONS: dict[str, object] = {
    "status": Annotated[Texts, typer.Option(help="With this status; may be repeated.")],
    "task": Annotated[Texts, typer.Option(help="Of this task; may be repeated.")],
    "tag": Annotated[Texts, typer.Option(help="With this tag; may be repeated.")],
    "queue": Annotated[Texts, typer.Option(help='In this queue, a task\'s own being "task/<id>"; may be repeated.')],
    "version": Annotated[Texts, typer.Option(help="Executed by this version; may be repeated.")],
    "machine": Annotated[Texts, typer.Option(help="On this machine; may be repeated.")],
    "parent": Annotated[Text, typer.Option(metavar="RUN", help="The children of this run.")],
    "batch": Annotated[Text, typer.Option(metavar="BATCH", help="Of this batch.")],
    "schedule": Annotated[Text, typer.Option(metavar="SCHEDULE", help="Made by this schedule.")],
    "bulk": Annotated[Text, typer.Option(metavar="ACTION", help="Cancelled by this bulk action, or made by it.")],
    "test": Annotated[bool | None, typer.Option("--test/--no-test", help="Only those of tests, or none of them.")],
    "since": Annotated[Text, typer.Option(metavar="WHEN", help="Made after this date, or so long ago at most (2h, 7d).")],
    "until": Annotated[Text, typer.Option(metavar="WHEN", help="Made before this date, or so long ago at least.")],
}
_FIELDS = {
    "task": "task_id", "tag": "tags", "parent": "parent_run_id", "batch": "batch_id", "schedule": "schedule_id",
    "bulk": "bulk_id", "test": "is_test", "since": "created_after", "until": "created_before",
}  # fmt: skip
"""Options whose fields have other names."""


def _query(given: dict[str, object]) -> RunQuery:
    return cast("RunQuery", {_FIELDS.get(name, name): _value(name, value) for name, value in given.items()})


def _value(name: str, value: object) -> object:
    if name == "status":
        return [status.upper() for status in cast("list[str]", value)]
    return _moment(f"--{name}", str(value)) if name in {"since", "until"} else value


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


SELECTING = Group(options=_OPTIONS, read=_query)
