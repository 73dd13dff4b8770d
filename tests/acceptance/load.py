"""A thousand runs under way while processes die, and the check that each came out right."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from tests.acceptance.plan import Plan, plans
from tests.acceptance.stage import Stage, until

RUNS = 1000
CHUNK = 20


class Load:
    def __init__(self, stage: Stage, rng: random.Random, runs: int = RUNS) -> None:
        self.stage, self.rng, self.runs = stage, rng, runs
        self.plans = plans(rng, runs)
        self.executions = sum(plan.executions for plan in self.plans)
        self.roots: dict[str, Plan] = {}
        self.triggering = asyncio.create_task(self._trigger())

    async def _trigger(self) -> None:
        """Trigger bit by bit, so that there are always some about to be triggered when something dies."""
        for start in range(0, len(self.plans), CHUNK):
            chunk = self.plans[start : start + CHUNK]
            handle = await self.stage.client.batch.trigger(
                [self.stage.client.tasks.item(plan.kind, plan) for plan in chunk]
            )
            self.roots |= {run.id: plan for run, plan in zip(handle.runs, chunk, strict=True)}

    def moments(self, count: int, *, until: float = 0.8) -> Iterator[int]:
        """Random moments of the load, as numbers of attempts begun, up to a part of them."""
        return iter(sorted(self.rng.sample(range(self.executions // 20, int(self.executions * until)), count)))

    def has_reached(self, moment: int) -> bool:
        if self.triggering.done():
            self.triggering.result()
        return len(self.stage.ledger.of("begin")) >= moment

    async def reaches(self, moment: int) -> None:
        await until(
            lambda: self.has_reached(moment), lambda: f"{moment} of {self.executions} attempts: {self.stage.describe()}"
        )

    async def is_over(self) -> None:
        await self.stage.all_over(self.runs)

    def check(self) -> None:
        """Every run ended once and is right: by its plan, and by what the tasks themselves wrote down."""
        rows = self.stage.query("select id, task_id, status::text, attempt, error from detent.history")
        wrong = [row for row in rows if row[2] != "COMPLETED"]
        assert not wrong, wrong[:5]
        assert len(rows) == len({row[0] for row in rows}) == self.runs
        self._check_roots()
        self._check_attempts(Counter((row[1], row[3]) for row in rows))
        self._check_ledger()

    def _check_roots(self) -> None:
        assert len(self.roots) == len(self.plans)
        outputs = dict(self.stage.outcomes("parent_id is null", "output"))
        for run_id, plan in self.roots.items():
            assert json.loads(outputs[run_id]) == plan.value, (run_id, plan)

    def _check_attempts(self, found: Counter[tuple[str, int]]) -> None:
        """No death used up an attempt, and each planned failure did."""
        assert found == Counter(_all_runs(self.plans))

    def _check_ledger(self) -> None:
        begun, ended = self.stage.ledger.times("begin"), self.stage.ledger.times("end")
        assert len(begun) == self.executions
        assert len(ended) == self.runs
        known = {run_id for run_id, _ in ended}
        assert {run_id for run_id, _ in begun} == known


def _all_runs(trees: list[Plan]) -> Iterator[tuple[str, int]]:
    for tree in trees:
        yield tree.kind, tree.attempts
        for _ in range(tree.attempts):
            yield from _all_runs(list(tree.parts))


@asynccontextmanager
async def under_load(stage: Stage, rng: random.Random, runs: int = RUNS) -> AsyncIterator[Load]:
    """Load during the block; afterwards all of it must be over, right, and leave nothing behind."""
    load = Load(stage, rng, runs)
    async with stage.hurrying():
        try:
            yield load
            await load.triggering
        finally:
            load.triggering.cancel()
        await load.is_over()
        load.check()
        await stage.check_nothing_left()
