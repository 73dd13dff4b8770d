"""`detent migrate`: bring the database to the schema that this detent needs."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from detent.cli import database, printing
from detent.cli.options import Json

app = typer.Typer()


@app.command()
def migrate(
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be applied.")] = False,
    as_json: Json = False,
) -> None:
    """Apply the missing migrations to the database."""
    names = asyncio.run(_plan() if plan else _apply())
    if as_json:
        printing.as_json({"planned" if plan else "applied": names})
    elif not names:
        print("the schema is up to date")
    else:
        print(*(f"{'would apply' if plan else 'applied'} {name}" for name in names), sep="\n")


async def _plan() -> list[str]:
    from detent import migrations

    async with database.unprepared() as dsn:
        return [str(migration) for migration in await migrations.plan(dsn)]


async def _apply() -> list[str]:
    from detent import migrations

    async with database.unprepared() as dsn:
        return [str(migration) for migration in await migrations.apply(dsn)]
