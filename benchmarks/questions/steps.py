"""How long does each of many steps take that a run takes one after the other?"""

from __future__ import annotations

import asyncio

from benchmarks.measuring import MeasurementError, figure, median
from benchmarks.stage import Stage
from benchmarks.tasks import steps
from benchmarks.worker import WARM_UP_RUNS
from detent import runs

STEPS = 1000
ROUNDS = 5


def answer(stage: Stage) -> dict[str, float]:
    count = stage.sized(STEPS)
    with stage.database() as database, stage.worker(database):
        seconds = [asyncio.run(_seconds(count)) for _ in range(ROUNDS)]
        database.check_completed(WARM_UP_RUNS + ROUNDS)
    return {"ms_per_step": figure(median(seconds) / count * 1000)}


async def _seconds(count: int) -> float:
    run = await runs.poll(await steps.trigger(count))
    if run.output is None:
        raise MeasurementError(f"run {run.id} ended as {run.status}: {run.error}")
    return run.output
