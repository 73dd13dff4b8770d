"""A deploy over ten thousand waiting runs: all workers stop, changed code starts, and every run goes on or says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.stage import Stage, until

pytestmark = pytest.mark.acceptance

RUNS = 10_000
BEFORE = """
from detent import step, task, wait

async def price(n: int) -> int:
    return n * 100

@task
async def kept(n: int) -> str:
    found = await step("price", price, n)
    await wait.for_(days=30)
    return f"before {found}"

@task
async def reordered(n: int) -> str:
    await wait.for_(days=30)
    return "before"

@task
async def removed(n: int) -> str:
    await wait.for_(days=30)
    return "before"
"""
AFTER = """
from detent import step, task, wait

async def price(n: int) -> int:
    raise AssertionError("its result is recorded")

@task
async def kept(n: int) -> str:
    found = await step("price", price, n)
    await wait.for_(days=30)
    return f"after {found}"

@task
async def other(n: int) -> str:
    return "other"

@task
async def reordered(n: int) -> str:
    await other.call(n)
    await wait.for_(days=30)
    return "after"
"""
OUTCOMES = """
select task_id, status::text, attempt, count(*), count(distinct output),
  min(output), bool_and(error ~ 'recorded time as its operation main/0.*asks for child of other.*after.py')
from detent.history group by 1, 2, 3 order by 1
"""


async def test_changed_code_goes_on_with_ten_thousand_waiting_runs_or_says_why_not(
    stage: Stage, tmp_path: Path
) -> None:
    before, after = tmp_path / "before.py", tmp_path / "after.py"
    before.write_text(BEFORE)
    after.write_text(AFTER)
    old = await stage.start_worker(str(before))
    await stage.client.tasks.batch_trigger("kept", range(RUNS - 20))
    await stage.client.tasks.batch_trigger("reordered", range(10))
    await stage.client.tasks.batch_trigger("removed", range(10))
    await until(lambda: _waiting(stage) == RUNS, lambda: f"the waits: {stage.describe()}")
    old.kill_all()
    await stage.start_worker(str(after))
    stage.query("update testing.clock set shift = interval '31 days'")
    await until(lambda: stage.one("select count(*) from detent.runs") == 10, stage.describe)
    assert stage.query(OUTCOMES) == [
        ("kept", "COMPLETED", 1, RUNS - 20, RUNS - 20, '"after 0"', None),
        ("reordered", "FAILED", 1, 10, 0, None, True),
    ]
    # No worker has their task any more: they wait for one, and say so.
    stuck = [run async for run in await stage.client.runs.list(task_id="removed")]
    assert [run.waiting_reason.code for run in stuck if run.waiting_reason is not None] == ["NO_LIVE_WORKER"] * 10


def _waiting(stage: Stage) -> int:
    return int(stage.one("select count(*) from detent.runs where status = 'WAITING'"))
