"""Workers whose database is behind PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from detent import Client
from tests.acceptance import stage as stages
from tests.acceptance.load import under_load
from tests.acceptance.stage import Stage, playing
from tests.nursery import Nursery
from tests.pooler import Pooler, direct, pooler_before

pytestmark = pytest.mark.acceptance


@pytest.fixture
async def pooled_stage(nursery: Nursery, fresh_dsn: str, pooler: Pooler, tmp_path: Path) -> AsyncIterator[Stage]:
    async with playing(nursery, pooler.before(direct(fresh_dsn)), tmp_path) as stage:
        yield stage


async def test_runs_are_found_by_polling_where_no_direct_connection_is_named(
    pooled_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run, a child, a wait that is over, and the result that a client waits for: no wake-up tells of any."""
    monkeypatch.setattr(stages, "variables", lambda dsn: {"DETENT_DATABASE_URL": dsn})
    stage, outputs = pooled_stage, []
    await stage.start_worker("many.py")
    async with Client(database_url=stage.dsn) as client:
        for kind in ("tiny", "parent", "sleeping"):
            run = await client.tasks.trigger_and_poll(kind, 1, timeout=30)
            outputs.append(run.is_success)
    assert outputs == [True] * 3


async def test_every_run_ends_once_and_right_though_the_pooler_is_killed(
    nursery: Nursery, fresh_dsn: str, server_dsn: str, tmp_path: Path, pooler: Pooler, rng: random.Random
) -> None:
    with pooler_before(server_dsn) as mortal:
        async with playing(nursery, mortal.before(direct(fresh_dsn)), tmp_path) as stage:
            await stage.start_workers(2)
            async with under_load(stage, rng) as load:
                for moment in load.moments(5):
                    await load.reaches(moment)
                    mortal.kill()
                    await asyncio.to_thread(mortal.start)
