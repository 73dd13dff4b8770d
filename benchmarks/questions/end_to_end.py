"""How many runs a second go through when they are triggered one by one, all at once, and executed meanwhile?"""

from __future__ import annotations

import asyncio
import time

from benchmarks.client import trigger_concurrently
from benchmarks.database import Database
from benchmarks.measuring import figure, median
from benchmarks.stage import Stage
from benchmarks.tasks import noop
from benchmarks.worker import WARM_UP_RUNS

RUNS = 10_000
ROUNDS = 3


def answer(stage: Stage) -> dict[str, float]:
    count = stage.sized(RUNS)
    with stage.database() as database, stage.worker(database):
        rates = [_runs_per_s(database, count) for _ in range(ROUNDS)]
        database.check_completed(WARM_UP_RUNS + ROUNDS * (count + 1))
    return {"runs_per_s": figure(median(rates))}


def _runs_per_s(database: Database, count: int) -> float:
    began = asyncio.run(_trigger(count))
    database.await_end_of_runs()
    return count / (time.monotonic() - began)


async def _trigger(count: int) -> float:
    """Return when it began."""
    await noop.trigger({"n": 0})
    began = time.monotonic()
    await trigger_concurrently(count)
    return began
