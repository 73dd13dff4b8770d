"""Ten thousand runs, after which the workers are as they were."""

from __future__ import annotations

import itertools
import json

import psutil
import pytest

from tests.acceptance.stage import Stage, until
from tests.pooler import connections

pytestmark = pytest.mark.acceptance

HALF = 5000
KINDS = ("tiny", "in_thread", "talking", "sleeping", "limited", "failing", "parent")
RUNS_OF_KIND = {"parent": 2}
THREADS = 32 + 6
GROWTH = 1.05
"""Of resident memory, from 5,000 to 10,000 runs: what allocators round up to."""


async def test_ten_thousand_runs_leave_no_task_thread_connection_file_or_memory_behind(stage: Stage) -> None:
    await stage.start_workers(2, "many.py")
    await _execute(stage, HALF)
    before = await _look(stage)
    supervisors = _supervisors(stage)
    await _execute(stage, HALF)
    after = await _look(stage)
    print(json.dumps([before, after, supervisors, _supervisors(stage)], indent=1))
    for pid, now in after.items():
        rss, was = now.pop("rss"), before[pid].pop("rss")
        assert now.pop("threads") <= THREADS, "more threads than a runner keeps for its plain functions"
        assert now.items() <= before[pid].items()
        assert rss < was * GROWTH, f"runner {pid} grew from {was:,} to {rss:,} bytes"
    await stage.client.close()
    await until(lambda: connections(stage.dsn) <= 2 * 4, "at most four connections a worker")
    for (files, threads, rss), earlier in zip(_supervisors(stage), supervisors, strict=True):
        assert (files, threads) == earlier[:2]
        assert rss < earlier[2] * GROWTH
    await stage.check_nothing_left()


async def _execute(stage: Stage, runs: int) -> None:
    """So many runs of all kinds, each with the right result."""
    before = stage.one("select count(*) from detent.history")
    item, kinds, made = stage.client.tasks.item, itertools.cycle(KINDS), 0
    items = []
    while made < runs:
        kind = next(kinds)
        items.append(item(kind, made))
        made += RUNS_OF_KIND.get(kind, 1)
    handle = await stage.client.batch.trigger(items)
    await stage.all_over(before + made)
    rows = stage.query(
        "select task_id, status::text, count(*) from detent.history where task_id <> 'look' group by 1, 2"
    )
    assert {status for task, status, _ in rows if task != "failing"} == {"COMPLETED"}, rows
    assert {status for task, status, _ in rows if task == "failing"} == {"FAILED"}, rows
    assert len(handle.runs) == len(items)


async def _look(stage: Stage) -> dict[int, dict[str, int]]:
    """What each runner says of itself."""
    pids = {runner.pid for runner in stage.runners()}
    seen: dict[int, dict[str, int]] = {}
    while seen.keys() != pids:
        run = await stage.client.tasks.trigger_and_poll("look", timeout=10)
        assert isinstance(run.output, dict)
        found = {name: int(str(value)) for name, value in run.output.items()}
        seen[found.pop("pid")] = found
    return seen


def _supervisors(stage: Stage) -> list[tuple[int, int, int]]:
    processes = [psutil.Process(worker.pid) for worker in stage.workers]
    return [(process.num_fds(), process.num_threads(), process.memory_info().rss) for process in processes]
