"""`detent doctor`: look at everything that can be wrong in a set-up, and say how to mend it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from detent.cli import database, failure, printing
from detent.cli.options import DEFAULT_ENVIRONMENT, Environment, Json
from detent.errors import ApiError, ConfigError, DatabaseError

if TYPE_CHECKING:
    from detent.cli.finding import Finding

app = typer.Typer()

_VERDICT_WIDTH = 8


@app.command()
def doctor(environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False) -> None:
    """Look at everything that can be wrong in a set-up, and say how to mend it.

    The exit code is 1 if something is wrong; a warning leaves it at 0.
    """
    from detent.cli.finding import Verdict

    findings = asyncio.run(_look(environment))
    if as_json:
        printing.as_json(findings)
    else:
        _show(findings)
    if any(finding.verdict is Verdict.WRONG for finding in findings):
        raise typer.Exit(failure.FAILED)


def _show(findings: Sequence[Finding]) -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        print(f"{finding.verdict.value:<{_VERDICT_WIDTH}} {finding.check:<{width}}  {finding.text}")


async def _look(environment: str) -> list[Finding]:
    """Look at one thing after the other, until something is so wrong that what comes after it says nothing."""
    from detent.cli import project_checks
    from detent.cli.finding import wrong

    findings = [
        project_checks.check_python(),
        *project_checks.check_variables(os.environ),
        *project_checks.check_project(Path.cwd()),
    ]
    try:
        async with database.unprepared() as dsn:
            findings += await _look_at_database(dsn, environment)
    except (DatabaseError, ConfigError, ApiError) as error:
        findings.append(wrong("database", str(error)))
    return findings


async def _look_at_database(dsn: str, environment: str) -> list[Finding]:
    from detent.cli import database_checks, envvar_checks, health_checks
    from detent.cli.calling import calling
    from detent.cli.finding import Verdict
    from detent.engine import reach
    from detent.engine.keyring import Keyring
    from detent.migrations.connection import target

    schema = await database_checks.check_schema(dsn)
    listen_url = database.listened_to()
    found = await reach.examine(dsn, listen_url or dsn)
    findings = [*database_checks.judge(found, target(dsn), listens_apart=listen_url is not None), schema]
    if schema.verdict is Verdict.OK:
        async with calling(dsn, environment) as caller:
            findings += health_checks.judge(await caller.backend.read_health(), environment)
            if (variables := await caller.backend.read_variables(None)) is not None:
                findings.append(envvar_checks.judge(variables, Keyring(database.encryption_key()), os.environ))
    return findings
