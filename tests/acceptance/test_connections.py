"""How many connections a worker has, whatever it does."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from psycopg.conninfo import make_conninfo

from detent import Client
from tests.acceptance.stage import POLL, Stage, until
from tests.pooler import connections

pytestmark = pytest.mark.acceptance

EXECUTING = 500
WAITING = 1000
MOST = 4


async def test_a_worker_has_four_connections_while_500_runs_execute_and_1000_wait(stage: Stage) -> None:
    await stage.start_worker("gated.py")
    seen: set[int] = set()
    counting = asyncio.create_task(_count(stage, seen))
    # The test's own connections bear another name than the worker's.
    async with Client(database_url=make_conninfo(stage.dsn, application_name="test")) as client:
        await client.tasks.batch_trigger("waiting", range(WAITING))
        await until(
            lambda: stage.one("select count(*) from detent.runs where status = 'WAITING'") == WAITING, "the waits"
        )
        await client.tasks.batch_trigger("gated", range(EXECUTING))
        await until(lambda: len(stage.ledger.of("begin")) == WAITING + EXECUTING, "the begin of every run")
        stage.open_gate()
        await until(lambda: stage.one("select count(*) from detent.history") == EXECUTING, "the end of what executes")
    counting.cancel()
    with suppress(asyncio.CancelledError):
        await counting
    assert 1 < max(seen) <= MOST, seen


async def _count(stage: Stage, seen: set[int]) -> None:
    while True:
        seen.add(await asyncio.to_thread(connections, stage.dsn))
        await asyncio.sleep(POLL)
