"""How soon after `kill -9` is the run executing again?"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psutil

from benchmarks.measuring import MeasurementError, figure, median, until
from benchmarks.stage import Stage
from benchmarks.tasks import hold
from benchmarks.worker import Worker

KILLED_RUNNERS = 3
LONGEST = 60.0


def answer(stage: Stage) -> dict[str, float]:
    with stage.database() as database, stage.worker(database) as first:
        runner = median([_after_runner(first, stage.scratch / f"ledger-{n}") for n in range(KILLED_RUNNERS)])
        ledger = stage.scratch / "ledger"
        _hold(ledger)
        with stage.worker(database) as second:
            worker = _after_worker(first, ledger)
            second.kill()
    return {"runner": figure(runner), "worker": figure(worker)}


def _after_runner(worker: Worker, ledger: Path) -> float:
    holder = psutil.Process(_hold(ledger))
    if holder not in worker.runners:
        raise MeasurementError(f"process {holder.pid} executes the run, and is no runner of the worker")
    killed = time.monotonic()
    holder.kill()
    return _taken_up(ledger) - killed


def _after_worker(worker: Worker, ledger: Path) -> float:
    killed = time.monotonic()
    worker.kill()
    return _taken_up(ledger) - killed


def _hold(ledger: Path) -> int:
    """Start a run that stays; return the process that executes it."""
    asyncio.run(_trigger(ledger))
    until(lambda: len(_lines(ledger)) == 1, "the run was executing", within=LONGEST)
    return int(_lines(ledger)[0][0])


async def _trigger(ledger: Path) -> None:
    await hold.trigger(str(ledger))


def _taken_up(ledger: Path) -> float:
    """Return when the run executed again."""
    until(lambda: len(_lines(ledger)) > 1, "the run was executing again", within=LONGEST)
    (killed, _), (other, moment) = _lines(ledger)
    if killed == other:
        raise MeasurementError(f"the run went on in process {other}, which was killed")
    return float(moment)


def _lines(ledger: Path) -> list[list[str]]:
    return [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []
