"""`detent why`: why is a run not running?"""

from __future__ import annotations

from typing import Annotated

import typer

from detent.cli import printing
from detent.cli.calling import call
from detent.cli.options import DEFAULT_ENVIRONMENT, Environment, Json

app = typer.Typer()

_LABEL_WIDTH = 13


@app.command()
def why(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")],
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """Say why a run is not running: in a sentence, as a code, and with its facts."""
    run = call(environment, lambda caller: caller.client.runs.retrieve(run_id))
    reason = run.waiting_reason
    if as_json:
        printing.as_json({"id": run.id, "status": run.status, "waiting_reason": reason})
    elif reason is None:
        print(f"{run.id} is {run.status.value}; it waits for nothing")
    else:
        print(reason.text)
        for label, text in (("status", run.status.value), ("code", reason.code), *reason.facts.items()):
            print(f"{label:<{_LABEL_WIDTH}} {text}")
