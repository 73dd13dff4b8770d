"""A real `detent worker`: a supervisor and its two runners, with the shipped defaults."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import tasks
from benchmarks.database import Database
from benchmarks.measuring import MeasurementError, until

RUNNERS = 2
WARM_UP_RUNS = 400
START_TIMEOUT = 20
STOP_TIMEOUT = 15
COMMAND = [sys.executable, "-m", "detent", "worker", tasks.__file__]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    supervisor: psutil.Process

    @property
    def runners(self) -> list[psutil.Process]:
        return self.supervisor.children(recursive=True)

    @property
    def resident_bytes(self) -> int:
        return sum(process.memory_info().rss for process in [self.supervisor, *self.runners])

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the runners do nothing meanwhile, so that what is queued inside waits for a worker that is up already."""
        runners = self.runners
        for runner in runners:
            runner.suspend()
        try:
            yield
        finally:
            for runner in runners:
                runner.resume()

    def kill(self) -> None:
        """`kill -9` of the supervisor and its runners."""
        for process in [self.supervisor, *self.runners]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def stop(self) -> None:
        if self.supervisor.is_running():
            self.supervisor.terminate()


@contextmanager
def started(database: Database, log: Path) -> Iterator[Worker]:
    """Start a worker, and stop it afterwards. It has executed some runs when this returns."""
    sessions, runs = database.live_sessions(), database.live_runs()
    with log.open("w") as output:
        process = subprocess.Popen(COMMAND, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=log.parent)
    worker = Worker(supervisor=psutil.Process(process.pid))
    children: list[psutil.Process] = []
    try:
        _await_sessions(process, database, sessions + RUNNERS, log)
        children = worker.runners
        asyncio.run(warm_up())
        database.await_end_of_runs(but=runs)
        yield worker
    finally:
        worker.stop()
        _end(process, children)


async def warm_up() -> None:
    """Let both runners execute something, so that what is done once in a process is done."""
    await tasks.noop.batch_trigger([{"n": n} for n in range(WARM_UP_RUNS)])


def check_alive(process: subprocess.Popen[bytes], log: Path) -> None:
    """Raise, with the end of its log, when a process that should serve has ended."""
    if process.poll() is not None:
        raise MeasurementError(f"{process.args!r} ended with code {process.returncode}:\n{log.read_text()[-2000:]}")


def _await_sessions(process: subprocess.Popen[bytes], database: Database, wanted: int, log: Path) -> None:
    def is_ready() -> bool:
        check_alive(process, log)
        return database.live_sessions() >= wanted

    until(is_ready, "the worker was ready", within=START_TIMEOUT)


def _end(process: subprocess.Popen[bytes], children: list[psutil.Process]) -> None:
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
