"""The databases that tests are given."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta

import psycopg
import pytest
from psycopg import AsyncConnection

from tests.database import Clock, Database, OpenTransactionError, open_database
from tests.pooler import direct

COUNT = "select count(*) from detent.environments"
ADD = "insert into detent.environments (slug, type) values ('one', 'STAGING')"


@pytest.mark.parametrize("attempt", [1, 2])
async def test_a_test_does_not_see_the_rows_of_another(conn: AsyncConnection, attempt: int) -> None:
    assert await (await conn.execute(COUNT)).fetchone() == (0,)
    await conn.execute(ADD)


def test_identities_start_again_after_a_reset(database: Database) -> None:
    for _ in range(2):
        database.connection.execute(ADD)
        assert database.connection.execute("select id from detent.environments").fetchone() == (1,)
        database.reset()


def test_a_fresh_database_is_migrated_and_empty(fresh_dsn: str) -> None:
    with psycopg.connect(direct(fresh_dsn)) as connection:
        assert connection.execute(COUNT).fetchone() == (0,)


def test_an_open_transaction_that_holds_locks_fails_the_test(fresh_dsn: str) -> None:
    with open_database(fresh_dsn) as database, closing(psycopg.connect(direct(fresh_dsn))) as left_open:
        left_open.execute(ADD)
        database.connection.execute("insert into detent.environments (slug, type) values ('two', 'STAGING')")
        database.connection.execute("set lock_timeout = '10ms'")
        with pytest.raises(OpenTransactionError):
            database.reset()
        assert database.connection.execute(COUNT).fetchone() == (0,)


def test_a_month_passes_at_once_and_is_forgotten_by_the_next_test(database: Database, clock: Clock) -> None:
    before = clock.now()
    clock.advance(timedelta(days=30))
    assert timedelta(days=30) <= clock.now() - before < timedelta(days=30, minutes=1)
    database.reset()
    assert clock.now() - before < timedelta(minutes=1)
