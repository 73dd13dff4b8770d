"""The options of a replay that are other than those of the run it replays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias, cast

import typer

from detent.cli.grouping import Group

if TYPE_CHECKING:
    from detent.sdk.options import TriggerOptions

Overrides: TypeAlias = "TriggerOptions"
"""What a command with these options is given. A name that is there when its signature is read, without the SDK."""
Text: TypeAlias = str | None

# Four have names of their own: without `new` they select runs.
_OPTIONS: dict[str, object] = {
    "new_tag": Annotated[list[str] | None, typer.Option(help="A tag of the new run, instead of the old ones; may be repeated.")],
    "new_queue": Annotated[Text, typer.Option(help="Another queue.")],
    "new_machine": Annotated[Text, typer.Option(help="Another machine, by its name.")],
    "new_version": Annotated[Text, typer.Option(help="Only workers of this version run it.")],
    "concurrency_key": Annotated[Text, typer.Option(help="Another concurrency key.")],
    "delay": Annotated[Text, typer.Option(help='Start no sooner than after, such as "30s" or "2h".')],
    "ttl": Annotated[Text, typer.Option(help='Expire if not started after, such as "10m"; "0s" is never.')],
    "priority": Annotated[float | None, typer.Option(help="Seconds by which it goes before others.")],
    "max_attempts": Annotated[int | None, typer.Option(help="How often it is tried.")],
    "max_duration": Annotated[Text, typer.Option(help="Wall time that one attempt may take.")],
    "idempotency_key": Annotated[Text, typer.Option(help="The same key gives the same run again.")],
}


def _read(given: dict[str, object]) -> TriggerOptions:
    options = {name.removeprefix("new_"): value for name, value in given.items()}
    if "tag" in options:
        options["tags"] = options.pop("tag")
    return cast("TriggerOptions", options)


CHANGING = Group(options=_OPTIONS, read=_read)
