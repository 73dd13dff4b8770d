"""`detent runner`: the composition root of a process that executes runs. Started by a supervisor, never by hand."""

from __future__ import annotations

import os
import sys

from detent.cli import database, failure
from detent.engine.backend import EngineBackend, connect
from detent.errors import ConfigError
from detent.worker import process
from detent.worker.settings import WorkerSettings

COMMAND = (sys.executable, "-P", "-m", "detent", "runner")
"""`-P`: a folder of the project that is called `detent` must not stand for this package."""


def main() -> int:
    """Be a runner, to the end of the process. What goes wrong unexpectedly is told whole, in the worker's own output."""
    sys.path.insert(0, os.getcwd())
    try:
        process.main(_connect)
    except ConfigError as error:
        failure.say(error)
        return failure.exit_code(error)


def _connect(settings: WorkerSettings) -> EngineBackend:
    # It outlives a database that is away, however long: what runs came to is told when it is back.
    return connect(
        settings.database_url,
        environment=settings.environment,
        patience=None,
        size=1,
        listen_url=database.listened_to(),
        encryption_key=database.encryption_key(),
    )
