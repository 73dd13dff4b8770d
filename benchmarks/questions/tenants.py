"""Does a worker drain its queue more slowly when its runs are those of ten thousand tenants, of each of which one may execute?"""

from __future__ import annotations

from benchmarks.measuring import figure, median
from benchmarks.questions.drain import ROUNDS, drain_items_per_s
from benchmarks.stage import Stage
from benchmarks.tasks import noop, noop_of_tenant
from benchmarks.worker import WARM_UP_RUNS

TENANTS = 10_000
RUNS_EACH = 2


def answer(stage: Stage) -> dict[str, float]:
    tenants = stage.sized(TENANTS)
    count = RUNS_EACH * tenants
    together = [noop.item({"n": n}, concurrency_key=0) for n in range(count)]
    apart = [noop_of_tenant.item({"n": n}, concurrency_key=n % tenants) for n in range(count)]
    with stage.database() as database, stage.worker(database) as worker:
        of_one = median([drain_items_per_s(database, worker, together) for _ in range(ROUNDS)])
        of_many = median([drain_items_per_s(database, worker, apart) for _ in range(ROUNDS)])
        database.check_completed(WARM_UP_RUNS + 2 * ROUNDS * count)
    return {"ratio": figure(of_many / of_one)}
