"""`detent worker`: execute runs, in production."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detent.cli import database
from detent.cli.options import DEFAULT_ENVIRONMENT, Environment, Json
from detent.errors import ConfigError

if TYPE_CHECKING:
    from detent.worker.settings import WorkerSettings

app = typer.Typer()


@app.command()
def worker(
    path: Annotated[
        Path | None, typer.Argument(metavar="PATH", help="The file or folder of tasks.  [default: as the config says]")
    ] = None,
    runners: Annotated[int, typer.Option(min=1, help="Processes that execute runs.")] = 2,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that executing runs are given to end on SIGTERM.")] = 30,
    max_resident: Annotated[
        int, typer.Option(min=1, help="Waiting runs that stay in memory; those beyond are replayed when they go on.")
    ] = 20_000,
    version: Annotated[
        str | None,
        typer.Option(
            "--code-version", envvar="DETENT_VERSION", help="Name of the code's version.  [default: made by date]"
        ),
    ] = None,
    show_runs: Annotated[bool, typer.Option("--show-runs", help="Print a line for each run.")] = False,
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """Execute runs, in production.

    It serves the database that DETENT_DATABASE_URL names, until SIGTERM, which drains; a second one hands back at once what
    executes.
    """
    dsn = database.named()
    if dsn is None:
        raise ConfigError(f"`detent worker` needs {database.URL}; for the project's embedded database use `detent dev`")
    asyncio.run(
        _Worker(dsn, path, environment, runners, grace, max_resident, version, show_runs or as_json, as_json).serve()
    )


@dataclass(frozen=True, slots=True)
class _Worker:
    dsn: str
    path: Path | None
    environment: str
    runners: int
    grace: float
    max_resident: int
    version: str | None
    is_showing: bool
    is_json: bool

    async def serve(self) -> None:
        from detent import migrations
        from detent.cli import serving
        from detent.cli.lines import JsonLines, Lines
        from detent.cli.readiness import Readiness
        from detent.migrations.connection import target

        began = time.monotonic()
        await migrations.verify(self.dsn)
        settings = self._settings()
        with JsonLines() if self.is_json else Lines() as lines:
            async with serving.backend_for(settings) as backend:
                readiness = Readiness(lines, backend, database=target(self.dsn), began=began)
                await serving.serve(
                    settings,
                    backend,
                    on_event=readiness.event,
                    on_signal=lines.signal,
                    beside=lambda _: [readiness.announce()],
                )

    def _settings(self) -> WorkerSettings:
        from detent.cli import serving
        from detent.sdk import discovery

        config = discovery.load_config(Path.cwd())
        config.telemetry.dismiss()
        settings = serving.settings_of(config, database_url=self.dsn, environment=self.environment, path=self.path)
        return replace(
            settings,
            runners=self.runners,
            grace=self.grace,
            max_resident=self.max_resident,
            version=self.version,
            send_events=self.is_showing,
        )
