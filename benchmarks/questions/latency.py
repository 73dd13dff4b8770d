"""How long, on an idle system, until a triggered run starts, and until its caller has the result?"""

from __future__ import annotations

import asyncio
import time

from benchmarks.measuring import MeasurementError, figure, percentile
from benchmarks.stage import Stage
from benchmarks.tasks import stamp
from benchmarks.worker import WARM_UP_RUNS
from detent import RunHandle, runs, tasks

TRIGGERS = 300
PAUSE = 0.05
WARM_UP = 10


def answer(stage: Stage) -> dict[str, dict[str, float]]:
    count = stage.sized(TRIGGERS)
    with stage.database() as database, stage.worker(database):
        starts = asyncio.run(_seconds_to_start(WARM_UP + count))[WARM_UP:]
        results = asyncio.run(_seconds_to_result(WARM_UP + count))[WARM_UP:]
        database.check_completed(WARM_UP_RUNS + 2 * (WARM_UP + count))
    return {"start": _summary(starts), "result": _summary(results)}


async def _seconds_to_start(count: int) -> list[float]:
    triggered = []
    for _ in range(count):
        await asyncio.sleep(PAUSE)
        began = time.monotonic()
        triggered.append((began, await stamp.trigger()))
    return [await _started(handle) - began for began, handle in triggered]


async def _started(handle: RunHandle[float]) -> float:
    run = await runs.poll(handle)
    if run.output is None:
        raise MeasurementError(f"run {run.id} ended as {run.status}: {run.error}")
    return run.output


async def _seconds_to_result(count: int) -> list[float]:
    seconds = []
    for _ in range(count):
        await asyncio.sleep(PAUSE)
        began = time.monotonic()
        await tasks.trigger_and_poll(stamp.id)
        seconds.append(time.monotonic() - began)
    return seconds


def _summary(seconds: list[float]) -> dict[str, float]:
    return {"p50": figure(percentile(seconds, 0.5) * 1000), "p99": figure(percentile(seconds, 0.99) * 1000)}
