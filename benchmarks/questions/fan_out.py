"""How long does a run take to start 1,000 children and have all their results?"""

from __future__ import annotations

import asyncio

from benchmarks.measuring import MeasurementError, figure, median
from benchmarks.stage import Stage
from benchmarks.tasks import fan_out
from benchmarks.worker import WARM_UP_RUNS
from detent import runs

CHILDREN = 1000
ROUNDS = 5


def answer(stage: Stage) -> dict[str, float]:
    children = stage.sized(CHILDREN)
    with stage.database() as database, stage.worker(database):
        seconds = [asyncio.run(_seconds(children)) for _ in range(ROUNDS)]
        database.check_completed(WARM_UP_RUNS + ROUNDS * (children + 1))
    return {"children": children, "seconds": figure(median(seconds))}


async def _seconds(children: int) -> float:
    run = await runs.poll(await fan_out.trigger(children))
    if run.output is None:
        raise MeasurementError(f"run {run.id} ended as {run.status}: {run.error}")
    return run.output
