"""Workers are killed while schedules fire, after each statement that this takes: each tick makes one run, none is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from pathlib import Path

import pytest

from detent import Client
from detent.engine import faults
from detent.protocol import ids
from tests.acceptance.stage import POLL, PROJECT, Stage, set_fault, until
from tests.pooler import direct

pytestmark = pytest.mark.acceptance

WORKERS, MANY = 2, 30
ENVIRONMENT = ("--env", "production")
"""In development, what is late is not made up."""
BY_WORKERS = ("find_due_schedules", "find_current_tasks", "fire_schedules", "sync_schedules")
TO_THE_NEXT_MINUTE = """
update testing.clock set shift = shift + date_trunc('minute', detent.now()) + interval '1 minute' - detent.now()
returning date_trunc('minute', detent.now())
"""
FIRED = "select count(*) from detent.schedules where last_at = %s"
RUNS = "select replace(schedule_id::text, '-', ''), payload::json ->> 'timestamp' from detent.history"


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[Client]:
    async with Client(database_url=stage.dsn, environment="production", listen_url=direct(stage.dsn)) as client:
        yield client


async def test_each_tick_makes_one_run_though_whoever_fires_it_is_killed(
    stage: Stage, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "fault"
    monkeypatch.setenv(faults.VARIABLE, f"@{file}")
    stage.query(TO_THE_NEXT_MINUTE)  # a whole one is left before anything fires by itself
    await stage.start_workers(WORKERS, "clockwork.py", runners=1, options=ENVIRONMENT)
    made = await asyncio.gather(*(client.schedules.create(task="made", cron="* * * * *") for _ in range(MANY)))
    ticks = []
    async with _workers_replaced(stage):
        for point in BY_WORKERS:
            set_fault(file, f"{point}:1:kill")
            ticks.append(await _tick(stage, 1 + MANY))
            await until(lambda: not file.exists(), lambda point=point: f"a death at {point}")
        await client.schedules.deactivate(made[0].id)
        set_fault(file, "set_next_tick:1:kill")
        await stage.spawn(["schedules", "activate", made[0].id, *ENVIRONMENT]).ended()
        ticks.append(await _tick(stage, 1 + MANY))
        await stage.none_live()

    schedules = [schedule.id async for schedule in client.schedules.list()]
    assert Counter(stage.query(RUNS)) == Counter(
        (ids.to_hex("sched", schedule), tick) for schedule in schedules for tick in ticks
    )


async def _tick(stage: Stage, count: int) -> str:
    """Move the clock to the next minute, and return that when so many schedules have fired for it."""
    tick = stage.one(TO_THE_NEXT_MINUTE)
    await until(lambda: stage.one(FIRED, (tick,)) == count, lambda: f"{count} schedules to fire: {stage.describe()}")
    return tick.astimezone(UTC).isoformat()


@asynccontextmanager
async def _workers_replaced(stage: Stage) -> AsyncIterator[None]:
    async def replace() -> None:
        while True:
            if sum(worker.is_alive for worker in stage.workers) < WORKERS:
                stage.spawn(["worker", str(PROJECT / "clockwork.py"), "--runners", "1", *ENVIRONMENT])
            await asyncio.sleep(POLL)

    task = asyncio.create_task(replace())
    try:
        yield
    finally:
        task.cancel()
