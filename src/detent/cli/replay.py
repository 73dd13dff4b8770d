"""`detent replay`: would today's code go on with a recorded run?"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detent.cli import database, printing
from detent.cli.options import DEFAULT_ENVIRONMENT, Environment, Json

if TYPE_CHECKING:
    from detent.worker.rehearsal import Rehearsal

app = typer.Typer()

DIFFERENT = 1


@app.command()
def replay(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The id of a run that is not over.")],
    path: Annotated[
        Path | None, typer.Argument(metavar="PATH", help="The file or folder of tasks.  [default: as the config says]")
    ] = None,
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """Run a recorded run against the code that is here, and say whether it goes the same way.

    The run's function is called and answered from its journal: nothing is triggered, waited for or recorded, and no step that was
    not done is. What the code does outside of steps, it does. Exit code 1 when it differs, with the first difference.
    """
    rehearsal = asyncio.run(_rehearse(run, path, environment))
    if as_json:
        printing.as_json(rehearsal)
    else:
        print(f"{rehearsal.repeated} of {rehearsal.recorded} recorded operations repeated; {rehearsal.end}")
        if rehearsal.difference:
            print(f"different: {rehearsal.difference}")
        else:
            print("the same: this code goes on with the run")
    if rehearsal.difference:
        raise typer.Exit(DIFFERENT)


async def _rehearse(run: str, path: Path | None, environment: str) -> Rehearsal:
    from detent.cli import serving
    from detent.protocol.ids import RunId
    from detent.sdk import discovery
    from detent.worker.rehearsal import rehearse
    from detent.worker.variables import GivenVariables

    async with database.opened() as dsn:
        settings = serving.settings_of(
            discovery.load_config(Path.cwd()), database_url=dsn, environment=environment, path=path
        )
        async with serving.backend_for(settings) as backend:
            if variables := await backend.read_variables(None):
                GivenVariables().give(variables.values)
            for source in settings.sources or (discovery.load_config(Path(settings.folder)),):
                discovery.discover(source)
            return await rehearse(backend, settings, RunId(run))
