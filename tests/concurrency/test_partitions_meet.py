"""Runs that end while a partition is made for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from psycopg import AsyncConnection

from detent.engine.backend import EngineBackend, connect
from detent.protocol.status import RunStatus
from tests.concurrency.meeting import Blockade
from tests.database import Server
from tests.engine.stage import Stage
from tests.pooler import direct


@pytest.fixture
async def fresh(server: Server, template: str) -> AsyncIterator[tuple[Stage, Blockade]]:
    """A database whose shelves have no partitions yet, and somebody else in it."""
    with server.new_database(template) as dsn:
        engine: EngineBackend = connect(dsn)
        async with await AsyncConnection.connect(direct(dsn), autocommit=True) as connection, Blockade.open(dsn) as other:
            yield Stage(engine, connection), other
        await engine.close()


async def test_an_outcome_is_kept_that_was_on_its_way_to_the_rest_when_its_partition_was_attached(
    fresh: tuple[Stage, Blockade],
) -> None:
    stage, other = fresh
    worker = await stage.worker()
    before, meanwhile = [await stage.leased(worker) for _ in range(2)]
    await stage.query("select detent.make_partition(0, 'logs_30')")
    await other.lock("select detent.make_partition(0, 'history_30')")
    ending = asyncio.create_task(worker.succeed(meanwhile))
    await other.until_blocked(1, [ending])
    await other.holder.commit()
    await ending
    await worker.succeed(before)
    assert await stage.statuses(before.run_id, meanwhile.run_id) == [RunStatus.COMPLETED] * 2
    assert await stage.count("history_30_rest") == 0
