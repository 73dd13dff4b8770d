"""Trees of runs cancelled at random moments, while runners are killed."""

from __future__ import annotations

import random

import pytest

from tests.acceptance.load import Load
from tests.acceptance.stage import Stage, until

pytestmark = pytest.mark.acceptance

RUNS = 400


async def test_cancelled_trees_end_whole_though_runners_are_killed(stage: Stage, rng: random.Random) -> None:
    await stage.start_workers(2)
    load = Load(stage, rng, RUNS)
    cancelled: dict[str, bool] = {}
    async with stage.hurrying():
        for moment in load.moments(30, until=0.5):
            # What is cancelled begins no more: the later moments may never come.
            await until(
                lambda moment=moment: load.has_reached(moment) or (load.triggering.done() and stage.is_idle()), stage.describe
            )
            for run_id in rng.sample(list(load.roots), min(len(load.roots), 3)):
                cancelled[run_id] = cancelled.get(run_id, False) or await stage.client.runs.cancel(run_id)
            if rng.random() < 0.2:
                await stage.kill_a_runner(rng)
        await load.triggering
        await stage.none_live()
    _check_trees(stage, {run_id for run_id, is_cancelled in cancelled.items() if is_cancelled})
    await stage.check_nothing_left()


def _check_trees(stage: Stage, cancelled: set[str]) -> None:
    """A cancelled root is CANCELED and so is all below it that had not ended; every other tree is untouched."""
    roots = dict(stage.outcomes("parent_id is null"))
    assert {run_id for run_id, status in roots.items() if status == "CANCELED"} == cancelled
    assert set(roots.values()) <= {"COMPLETED", "CANCELED"}
    strays = stage.query(
        """
        select child.id from detent.history as child join detent.history as root on root.id = child.root_id
        where child.status = 'CANCELED' and root.status <> 'CANCELED'
        """
    )
    assert not strays
