"""The command line's top: what `detent` accepts before the name of a command."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Annotated

import typer

from detent.cli.options import shared

HELP = "Durable background tasks for Python on PostgreSQL."


def app(modules: Iterable[str]) -> typer.Typer:
    """Return the application with the commands of these modules."""
    top = typer.Typer(
        help=HELP,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    top.callback()(_options)
    for name in modules:
        part = importlib.import_module(f"detent.cli.{name}").app
        _share_options(part)
        top.add_typer(part)
    return top


def _share_options(part: typer.Typer) -> None:
    for command in part.registered_commands:
        if command.callback is not None and not hasattr(command.callback, "__wrapped__"):
            command.callback = shared(command.callback)
    for group in part.registered_groups:
        if group.typer_instance is not None:
            _share_options(group.typer_instance)


def _version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        typer.echo(f"detent {version('detent')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error, too.")] = False,
) -> None:
    """Durable background tasks for Python on PostgreSQL."""
