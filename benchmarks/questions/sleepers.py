"""What does a run in a long wait cost in memory, how late does it wake when many wake together, and how long does it take when
they all are replayed by a worker that never saw them?"""

from __future__ import annotations

import asyncio
import time

from benchmarks.database import Database
from benchmarks.measuring import figure, percentile, until
from benchmarks.stage import Stage
from benchmarks.tasks import sleeper
from benchmarks.worker import WARM_UP_RUNS

RUNS = 10_000
SECONDS = 60.0
LEAST_SECONDS = 6.0
"""Up to 5 s are slept in the process."""
MONTH = 30 * 86_400.0
WAKE = "update detent.waitpoints set due_at = detent.now() where completed_at is null"
LATENESS = "select output::float8 from detent.history where task_id = 'sleeper'"


def answer(stage: Stage) -> dict[str, float]:
    count, seconds = stage.sized(RUNS), max(LEAST_SECONDS, SECONDS * stage.scale)
    with stage.database() as database, stage.worker(database) as worker:
        before = worker.resident_bytes
        asyncio.run(_enqueue(count, seconds))
        until(lambda: _waiting(database) == count, "all runs waited", within=seconds, every=0.1)
        bytes_per_run = (worker.resident_bytes - before) / count
        database.await_end_of_runs(within=2 * seconds)
        lateness = [late for (late,) in database.connection.execute(LATENESS).fetchall()]
        database.check_completed(WARM_UP_RUNS + count)
    return {
        "runs": count,
        "bytes_per_run": figure(bytes_per_run),
        "lateness_p99_s": figure(percentile(lateness, 0.99)),
        "replayed_s": figure(_replay_all(stage, count)),
    }


def _replay_all(stage: Stage, count: int) -> float:
    """Stop the worker under waiting runs, start another, wake them all: return the seconds until the last has ended."""
    with stage.database() as database:
        with stage.worker(database):
            asyncio.run(_enqueue(count, MONTH))
            until(lambda: _waiting(database) == count, "all runs waited", within=60, every=0.1)
        with stage.worker(database):
            database.connection.execute(WAKE)
            began = time.monotonic()
            database.await_end_of_runs(within=120)
            seconds = time.monotonic() - began
        database.check_completed(2 * WARM_UP_RUNS + count)
    return seconds


async def _enqueue(count: int, seconds: float) -> None:
    await sleeper.batch_trigger([seconds] * count)


def _waiting(database: Database) -> int:
    return int(database.number("select count(*) from detent.runs where status = 'WAITING'"))
