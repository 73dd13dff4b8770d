"""Code that blocks the event loop for longer than a lease."""

from __future__ import annotations

import pytest

from tests.acceptance.hurried import LEASE
from tests.acceptance.stage import Stage, until

pytestmark = pytest.mark.acceptance


async def test_blocked_loop_is_named_in_the_log_and_its_runs_stay_where_they_are(stage: Stage) -> None:
    await stage.start_workers(2, "gated.py", runners=1)
    neighbours = await stage.client.tasks.batch_trigger("gated", range(20))
    await until(lambda: len(stage.ledger.of("begin")) == 20, "the neighbours")
    blocking = await stage.client.tasks.trigger("blocking", LEASE * 1.6)
    await until(lambda: any(_is_named(worker.text(), blocking.id) for worker in stage.workers), "the name in the log")
    stage.open_gate()
    await stage.all_over(len(neighbours.runs) + 1)
    rows = stage.query("select status::text, attempt, losses, output::integer from detent.history")
    assert sorted(rows) == sorted(("COMPLETED", 1, 0, effect.pid) for effect in stage.ledger.of("begin"))
    await stage.check_nothing_left()


def _is_named(log: str, run_id: str) -> bool:
    return f'run {run_id} of task "blocking" has blocked the event loop' in log
