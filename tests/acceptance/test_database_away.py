"""The database away for several leases, while a hundred runs execute."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.acceptance.hurried import LEASE
from tests.acceptance.power import OwnServer
from tests.acceptance.stage import Stage, until

pytestmark = pytest.mark.acceptance

RUNS = 100
OUTAGE = 3 * LEASE


@pytest.mark.parametrize(
    ("take_away", "bring_back"), [(OwnServer.shut_down, OwnServer.start), (OwnServer.freeze, OwnServer.thaw)]
)
async def test_runs_end_without_the_database_and_their_outcomes_arrive_afterwards(
    power: OwnServer,
    powered_stage: Stage,
    take_away: Callable[[OwnServer], None],
    bring_back: Callable[[OwnServer], None],
) -> None:
    stage = powered_stage
    await stage.start_workers(2, "gated.py")
    sessions = stage.sessions()
    await stage.client.tasks.batch_trigger("gated", range(RUNS))
    await until(lambda: len(stage.ledger.of("begin")) == RUNS, "the begin of every run")
    take_away(power)
    stage.open_gate()
    await until(lambda: len(stage.ledger.of("end")) == RUNS, "the end of every run, with no database")
    await asyncio.sleep(OUTAGE)
    bring_back(power)
    await stage.all_over(RUNS)
    _check_nothing_ran_twice(stage)
    assert stage.sessions() == sessions, "an outage killed a worker"
    await stage.check_nothing_left()


def _check_nothing_ran_twice(stage: Stage) -> None:
    begun = stage.ledger.of("begin")
    assert len(begun) == RUNS
    rows = stage.query("select status::text, attempt, losses, output::integer from detent.history")
    assert sorted(rows) == sorted(("COMPLETED", 1, 0, effect.pid) for effect in begun)
