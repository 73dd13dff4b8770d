"""Does a worker drain its queue more slowly when five million finished runs lie in the tables?"""

from __future__ import annotations

from benchmarks import rows
from benchmarks.measuring import figure, median
from benchmarks.questions.drain import ROUNDS, RUNS, drain_per_s
from benchmarks.stage import Stage
from benchmarks.worker import WARM_UP_RUNS

FINISHED = 5_000_000


def answer(stage: Stage) -> dict[str, float]:
    count, finished = stage.sized(RUNS), stage.sized(FINISHED)
    with stage.database() as database, stage.worker(database) as worker:
        without = median([drain_per_s(database, worker, count) for _ in range(ROUNDS)])
        rows.finish(database, finished)
        burdened = median([drain_per_s(database, worker, count) for _ in range(ROUNDS)])
        database.check_completed(WARM_UP_RUNS + 2 * ROUNDS * count + finished)
    return {"ratio": figure(burdened / without)}
