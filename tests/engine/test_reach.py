"""What a database lets this machine do is found, with or without detent's schema, through a pooler or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from detent.engine import reach
from detent.engine.db import open_connection
from detent.engine.reach import Hearing
from detent.errors import ApiConnectionError
from tests.database import Server
from tests.pooler import Pooler, direct

GUEST = "detent_test_guest"


@pytest.fixture
def guest(server: Server, fresh_dsn: str) -> Iterator[str]:
    """A migrated database of the test's own, for a user without any rights in it."""
    with server.admin() as admin:
        admin.execute(f"drop role if exists {GUEST}")
        admin.execute(f"create role {GUEST} login")
        try:
            yield make_conninfo(direct(fresh_dsn), user=GUEST)
        finally:
            grant(fresh_dsn, f"drop owned by {GUEST}")
            admin.execute(f"drop role {GUEST}")


def grant(dsn: str, *statements: LiteralString) -> None:
    with psycopg.connect(direct(dsn), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


async def test_owner_of_the_schema_may_do_everything_and_hears(dsn: str) -> None:
    found = await reach.examine(direct(dsn), direct(dsn))
    assert (found.is_read_only, found.may_create, found.barred_tables, found.owners) == (False, True, (), ())
    assert (found.is_pooled, found.hearing) == (False, Hearing.HEARD)
    assert abs(found.clock_ahead) <= found.clock_doubt + 0.1
    assert int(found.server_version.split(".")[0]) >= 15


async def test_database_without_the_schema_is_examined_as_well(empty_dsn: str) -> None:
    found = await reach.examine(direct(empty_dsn), direct(empty_dsn))
    assert (found.may_create, found.barred_tables, found.owners) == (True, (), ())


async def test_user_without_rights_is_told_from_one_that_only_does_not_own(guest: str, fresh_dsn: str) -> None:
    assert "runs" in (await reach.examine(guest, guest)).barred_tables
    grant(fresh_dsn, f"grant usage on schema detent to {GUEST}", f"grant all on all tables in schema detent to {GUEST}")
    found = await reach.examine(guest, guest)
    assert found.barred_tables == ()
    assert len(found.owners) == 1


async def test_database_that_takes_no_writes_is_found(dsn: str) -> None:
    read_only = make_conninfo(direct(dsn), options="-c default_transaction_read_only=on")
    assert (await reach.examine(read_only, direct(dsn))).is_read_only


async def test_other_database_is_deaf(dsn: str, empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "HEARING_SECONDS", 0.2)
    assert (await reach.examine(direct(dsn), direct(empty_dsn))).hearing is Hearing.DEAF


async def test_address_for_wake_ups_that_nobody_answers_is_told(dsn: str, tmp_path: Path) -> None:
    assert (await reach.examine(direct(dsn), f"host={tmp_path}")).hearing is Hearing.UNREACHABLE


async def test_pooler_is_deaf_and_a_direct_connection_beside_it_is_not(fresh_dsn: str, pooler: Pooler) -> None:
    """In a database of its own: the pooler keeps its connections to it."""
    pooled = pooler.before(direct(fresh_dsn))
    found = await reach.examine(pooled, pooled)
    assert (found.is_pooled, found.hearing) == (True, Hearing.DEAF)
    assert (await reach.examine(pooled, direct(fresh_dsn))).hearing is Hearing.HEARD


async def test_database_out_of_reach_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detent.engine.db.FIRST_PATIENCE", 0.0)
    with pytest.raises(ApiConnectionError):
        await reach.examine(f"host={tmp_path}", f"host={tmp_path}")


async def test_what_is_put_around_the_driver_for_tasks_is_not_around_detents_own_connections(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def traced(*_: object, **__: object) -> None:
        pytest.fail("detent's own connection was traced")

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", traced)
    async with await open_connection(dsn) as connection:
        assert not connection.closed
