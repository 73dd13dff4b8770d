"""How long does each of many children take that a run starts one after the other?"""

from __future__ import annotations

import asyncio

from benchmarks.measuring import MeasurementError, figure, median
from benchmarks.stage import Stage
from benchmarks.tasks import sequence
from benchmarks.worker import WARM_UP_RUNS
from detent import runs

CHILDREN = 100
ROUNDS = 5


def answer(stage: Stage) -> dict[str, float]:
    children = stage.sized(CHILDREN)
    with stage.database() as database, stage.worker(database):
        seconds = [asyncio.run(_seconds(children)) for _ in range(ROUNDS)]
        database.check_completed(WARM_UP_RUNS + ROUNDS * (children + 1))
    return {"ms_per_child": figure(median(seconds) / children * 1000)}


async def _seconds(children: int) -> float:
    run = await runs.poll(await sequence.trigger(children))
    if run.output is None:
        raise MeasurementError(f"run {run.id} ended as {run.status}: {run.error}")
    return run.output
