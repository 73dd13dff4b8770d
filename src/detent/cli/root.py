"""The command line's top: what `detent` accepts before the name of a command."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Annotated

import typer

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
        top.add_typer(importlib.import_module(f"detent.cli.{name}").app)
    return top


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
