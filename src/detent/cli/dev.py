"""`detent dev`: a project's tasks, served on the developer's own machine."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detent.cli import database
from detent.cli.options import DEFAULT_ENVIRONMENT, Environment, Json, ReloadedEnvFile
from detent.cli.project import CONFIG_FILE, FOLDER, Project, find
from detent.errors import ConfigError

if TYPE_CHECKING:
    from detent.cli.env_files import EnvFiles
    from detent.cli.lines import Lines
    from detent.postgres.embedded import EmbeddedServer
    from detent.worker.settings import WorkerSettings
    from detent.worker.supervisor import Supervisor

GRACE = 2.0
"""Seconds that executing runs are given on Ctrl-C: what is handed back goes on at the next start."""
TTL = 600.0
"""Seconds after which a run that never started expires, unless a task or the config says otherwise: nobody wants it any more."""
SERVER_CHECK_SECONDS = 1.0

app = typer.Typer()


@app.command()
def dev(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="The project, or the file or folder of tasks.  [default: the project here]"),
    ] = None,
    runners: Annotated[int, typer.Option(min=1, help="Processes that execute runs.")] = 2,
    reload: Annotated[bool, typer.Option(help="Load the tasks again whenever a file is saved.")] = True,
    env_file: ReloadedEnvFile = None,
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """Serve a project while you write it.

    Its database is an embedded one, unless DETENT_DATABASE_URL names another; migrations are applied. Variables come from the
    shell, else from .env, .env.development, .env.local and .env.development.local. Ctrl-C drains, a second one hands back at once
    what executes.
    """
    from detent.cli import env_files

    began = time.monotonic()
    project, tasks = place(path, Path.cwd())
    variables = env_files.of_development(project.root, env_file or ())
    variables.load()
    asyncio.run(_Dev(project, tasks, variables, environment, runners, reload, as_json, began).serve())


def place(path: Path | None, here: Path) -> tuple[Project, Path | None]:
    """Return the project that is meant, and the tasks if they are not all of its tasks."""
    if path is not None and (path / CONFIG_FILE).is_file():
        return Project(root=path.resolve()), None
    return find(here) or Project(root=here.resolve()), path


@dataclass(frozen=True, slots=True)
class _Dev:
    project: Project
    tasks: Path | None
    variables: EnvFiles
    environment: str
    runners: int
    is_reloading: bool
    is_json: bool
    began: float

    async def serve(self) -> None:
        from detent.cli import serving
        from detent.cli.readiness import Readiness

        async with self._database() as (dsn, name, server):
            settings = self._settings(dsn)
            with self._lines() as lines:
                async with serving.backend_for(settings) as backend:
                    readiness = Readiness(lines, backend, database=name, began=self.began)

                    def beside(supervisor: Supervisor) -> Iterator[Coroutine[object, object, None]]:
                        yield readiness.announce()
                        yield _keep_alive(server, lines)
                        if self.is_reloading:
                            yield self._reload_on_save(supervisor, dsn, lines)

                    await serving.serve(
                        settings, backend, on_event=readiness.event, on_signal=lines.signal, beside=beside
                    )

    def _settings(self, dsn: str) -> WorkerSettings:
        from detent.cli import serving
        from detent.sdk import discovery

        # Loaded anew when it was saved.
        sys.modules.pop(Path(CONFIG_FILE).stem, None)
        config = discovery.load_config(self.project.root)
        config.telemetry.dismiss()
        settings = serving.settings_of(config, database_url=dsn, environment=self.environment, path=self.tasks)
        return replace(
            settings,
            runners=self.runners,
            grace=GRACE,
            is_retrying=config.retries.enabled_in_dev,
            ttl=TTL if config.ttl is None else config.ttl,
            send_events=True,
            echo_output=not self.is_json and config.console.echo is not False,
        )

    @asynccontextmanager
    async def _database(self) -> AsyncIterator[tuple[str, str, EmbeddedServer | None]]:
        """Yield a database with the newest schema, a name for it, and its server if that is the embedded one."""
        if url := database.named():
            from detent import migrations
            from detent.migrations.connection import target

            await migrations.apply(url)
            yield url, target(url), None
            return
        starting = asyncio.get_running_loop().run_in_executor(None, database.start_embedded, self.project)
        # Imported while it starts.
        from detent import migrations
        from detent.cli import serving  # noqa: F401

        with await starting as server:
            await migrations.apply(server.dsn)
            yield server.dsn, f"PostgreSQL {server.version} in {FOLDER}", server

    def _lines(self) -> Lines:
        from detent.cli.lines import JsonLines, Lines

        if self.is_json:
            return JsonLines()
        if not sys.stdout.isatty():
            return Lines()
        from detent.cli.live_lines import LiveLines

        return LiveLines()

    async def _reload_on_save(self, supervisor: Supervisor, dsn: str, lines: Lines) -> None:
        from detent.cli import saving

        async for _ in saving.saves(self._watched(), self.variables.paths):
            try:
                self.variables.load()
                settings = self._settings(dsn)
            except ConfigError as error:
                lines.say("error", str(error))
            else:
                await supervisor.reload(settings)

    def _watched(self) -> set[Path]:
        tasks = self.project.root if self.tasks is None else self.tasks.resolve()
        return {self.project.root, tasks if tasks.is_dir() else tasks.parent}


async def _keep_alive(server: EmbeddedServer | None, lines: Lines) -> None:
    """Start the embedded database again when it has died."""
    while server is not None:
        await asyncio.sleep(SERVER_CHECK_SECONDS)
        if await asyncio.to_thread(server.ensure_alive):
            lines.say("warning", f"the embedded database had died and was started again; {server.log} says why")
