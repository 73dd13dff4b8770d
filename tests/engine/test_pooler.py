"""Through PgBouncer in transaction mode, where the next statement may meet another server process."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from psycopg import AsyncConnection

from detent.engine import events
from detent.engine.backend import connect
from detent.engine.db import Db, open_connection
from detent.engine.pooler import is_pooled
from detent.protocol.wake_ups import Wake
from tests.engine.stage import Stage, Worker, request
from tests.pooler import Pooler, direct

LISTENING = "select count(*) from pg_stat_activity where datname = current_database() and query like 'listen %%'"


@pytest.fixture
def pooled(fresh_dsn: str, pooler: Pooler) -> str:
    """The test's database, through PgBouncer whatever the suite goes through."""
    return pooler.before(direct(fresh_dsn))


async def test_a_pooler_is_told_from_the_server(pooled: str) -> None:
    for dsn, wanted in ((direct(pooled), False), (pooled, True)):
        connection = await open_connection(dsn)
        assert await is_pooled(connection) is wanted
        await connection.close()


async def test_statements_of_one_client_are_not_taken_for_those_of_another(fresh_dsn: str, pooler: Pooler) -> None:
    """Each has one of its own, with as many parameters, and each call of it meets the next of three servers."""
    pooled = pooler.before(direct(fresh_dsn))
    async with await AsyncConnection.connect(direct(fresh_dsn), autocommit=True) as connection:
        await connection.execute("insert into detent.environments (slug, type) values ('dev', 'DEVELOPMENT')")
    async with AsyncExitStack() as opened:
        for _ in range(3):
            await (await opened.enter_async_context(await AsyncConnection.connect(pooled))).execute("select")
    first, second = Db(pooled, size=1), Db(pooled, size=1)
    try:
        for _ in range(6):
            assert await first.call("find_environment", {"slug": "dev"}, patience=0.1) == [(1, "dev", "DEVELOPMENT", None, None)]
            assert await second.call("list_sessions", {"environment": 1}, patience=0.1) == []
    finally:
        await first.close()
        await second.close()


async def test_wake_ups_come_over_the_direct_connection(stage: Stage, worker: Worker, pooled: str) -> None:
    engine = connect(pooled, listen_url=direct(pooled))
    async with engine.listen() as wakes, asyncio.timeout(5):
        await engine.trigger([request()])
        while not (await anext(wakes)).ready:
            pass
    await engine.close()


async def test_without_a_direct_connection_silence_says_that_it_is_time_to_look(
    stage: Stage, worker: Worker, pooled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "QUIET_SECONDS", 0.01)
    engine = connect(pooled)
    async with engine.listen() as wakes:
        await engine.trigger([request()])
        assert [await anext(wakes) for _ in range(3)] == [Wake()] * 3
        rows = await stage.query(LISTENING)
    await engine.close()
    assert rows == [(0,)], "a server process of the pooler listens, and fills up with what nobody reads"
