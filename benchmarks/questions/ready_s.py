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
from benchmarks.worker import check_alive
from detent import Client
from detent.postgres import embedded

COMMAND = [sys.executable, "-m", "detent", "dev"]
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
    log = project.parent / "dev.log"
    began = time.monotonic()
    with log.open("w") as output:
        dev = subprocess.Popen(COMMAND, cwd=project, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        dsn = _await_worker(project / ".detent", dev, log)
        asyncio.run(_trigger(dsn))
        return time.monotonic() - began
    finally:
        _stop(dev, project / ".detent")


def _await_worker(folder: Path, dev: subprocess.Popen[bytes], log: Path) -> str:
    """Return the dsn of the project's server once tasks are registered there by a worker that lives."""

    def is_up() -> bool:
        check_alive(dev, log)
        return embedded.running(folder) is not None

    def has_worker() -> bool:
        try:
            return connection.execute(LIVE_WORKER).fetchone() == (True,)
        except psycopg.OperationalError:
            # It stopped its server, and ends.
            dev.wait(STOP_TIMEOUT)
            check_alive(dev, log)
            raise

    until(is_up, "the server was up", within=LONGEST, every=POLL)
    dsn = embedded.running(folder) or ""
    with psycopg.connect(dsn, autocommit=True) as connection:
        until(has_worker, "the worker was up", within=LONGEST, every=POLL)
    return dsn


async def _trigger(dsn: str) -> None:
    async with Client(database_url=dsn) as client:
        await client.tasks.trigger("hello", {"name": "Ada"})


def _stop(dev: subprocess.Popen[bytes], folder: Path) -> None:
    dev.send_signal(signal.SIGINT)
    try:
        dev.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        dev.kill()
        dev.wait()
        # Nobody is left who would stop its server: join, and be the last to leave.
        embedded.start(folder).stop()
        raise
