"""Connections that outlive a test are as new ones."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.kept import Keeper
from tests.pooler import direct


@pytest.fixture
def own_dsn(fresh_dsn: str) -> str:
    """Leads directly to a database that nobody else uses."""
    return direct(fresh_dsn)


@pytest.fixture
def own_keeper(own_dsn: str) -> Iterator[Keeper]:
    keeper = Keeper(own_dsn)
    yield keeper
    keeper.drop()


async def pid(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> int:
    """Return the process that serves it, and close it."""
    async with connection:
        return connection.info.backend_pid


async def test_what_was_closed_is_opened_again(own_keeper: Keeper, own_dsn: str) -> None:
    first = await pid(await own_keeper.open(own_dsn))
    assert await pid(await own_keeper.open(own_dsn)) == first


async def test_two_at_once_are_two(own_keeper: Keeper, own_dsn: str) -> None:
    async with await own_keeper.open(own_dsn) as one, await own_keeper.open(own_dsn) as other:
        assert one.info.backend_pid != other.info.backend_pid


async def test_one_with_a_transaction_is_closed(own_keeper: Keeper, own_dsn: str) -> None:
    connection = await own_keeper.open(own_dsn)
    await connection.execute("begin")
    await connection.close()
    assert connection.closed


async def test_one_that_the_server_has_ended_is_not_given_to_anybody(own_keeper: Keeper, own_dsn: str) -> None:
    first = await pid(await own_keeper.open(own_dsn))
    async with await psycopg.AsyncConnection.connect(own_dsn, autocommit=True) as other:
        await other.execute("select pg_terminate_backend(%s, 5000)", (first,))
    assert await pid(await own_keeper.open(own_dsn)) != first


async def test_nothing_is_kept_while_a_test_asks_for_that(own_keeper: Keeper, own_dsn: str) -> None:
    first = await pid(await own_keeper.open(own_dsn))
    with own_keeper.off():
        async with await own_keeper.open(own_dsn) as connection:
            assert connection.info.backend_pid != first
        assert connection.closed
