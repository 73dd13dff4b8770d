"""`detent tasks`: the tasks that workers have registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from detent.cli import printing
from detent.cli.calling import call
from detent.cli.options import DEFAULT_ENVIRONMENT, Environment, Json

if TYPE_CHECKING:
    from detent.protocol.registration import RegisteredTask

app = typer.Typer()


@app.command()
def tasks(environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False) -> None:
    """List the tasks that workers have registered."""
    found = call(environment, lambda caller: caller.backend.list_tasks())
    if as_json:
        printing.as_json(found)
    elif not found:
        print(f'no worker has registered a task in environment "{environment}"; start one with `detent dev`')
    else:
        printing.table(["TASK", "KIND", "WORKER", "VERSION", "QUEUE", "FILE", "DESCRIPTION"], map(_row, found))


def _row(task: RegisteredTask) -> list[str]:
    worker = "live" if task.has_live_worker else "none"
    return [task.task_id, task.isolation.value, worker, task.version, task.queue, task.file_path, task.description]
