"""How soon can a run be triggered after `detent dev`, in a project that `detent init` made?"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg

from benchmarks.measuring import figure, median, until
from benchmarks.stage import Stage
from detent import Client
from detent.postgres import embedded

STARTS = 3
LONGEST = 30.0
STOP_TIMEOUT = 15
POLL = 0.01
LIVE_WORKER = "select exists (select from detent.sessions where ended_at is null)"


def answer(stage: Stage) -> float:
    project = stage.scratch / "project"
    project.mkdir(mode=0o755)
    subprocess.run([sys.executable, "-m", "detent", "init"], cwd=project, check=True, stdout=subprocess.DEVNULL)
    return figure(median([_seconds_to_trigger(project) for _ in range(STARTS)]))


def _seconds_to_trigger(project: Path) -> float:
    began = time.monotonic()
    with (project.parent / "dev.log").open("w") as output:
        command = [sys.executable, "-m", "detent", "dev"]
        dev = subprocess.Popen(command, cwd=project, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        dsn = _await_worker(project)
        asyncio.run(_trigger(dsn))
        return time.monotonic() - began
    finally:
        dev.send_signal(signal.SIGINT)
        dev.wait(STOP_TIMEOUT)


def _await_worker(project: Path) -> str:
    """Return the dsn of the project's server once tasks are registered there by a worker that lives."""
    folder = project / ".detent"
    until(lambda: embedded.running(folder) is not None, "the server was up", within=LONGEST, every=POLL)
    dsn = embedded.running(folder) or ""
    with psycopg.connect(dsn, autocommit=True) as connection:
        until(lambda: _has_worker(connection), "the worker was up", within=LONGEST, every=POLL)
    return dsn


def _has_worker(connection: psycopg.Connection) -> bool:
    return connection.execute(LIVE_WORKER).fetchone() == (True,)


async def _trigger(dsn: str) -> None:
    async with Client(database_url=dsn) as client:
        await client.tasks.trigger("hello", {"name": "Ada"})
