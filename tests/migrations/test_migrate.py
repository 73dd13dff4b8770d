"""Applying, planning and verifying, on a real database."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg import AsyncConnection

from detent.errors import (
    DatabaseRightsError,
    DatabaseUnreachableError,
    DatabaseVersionError,
    MigrationError,
    SchemaDriftError,
    SchemaVersionError,
)
from detent.migrations import Migration, apply, connection, load, plan, verify
from tests.pooler import direct

FIRST = Migration(version=1, name="first", sql="create table detent.a (id integer)")
SECOND = Migration(version=2, name="second", sql="alter table detent.a add name text")
CONCURRENT = Migration(
    version=2,
    name="index",
    sql="-- transaction: none\ndrop index concurrently if exists detent.ai;\n"
    "create index concurrently ai on detent.a (id);\n",
)


async def query(dsn: str, statement: str) -> list[tuple[object, ...]]:
    async with await AsyncConnection.connect(direct(dsn), autocommit=True) as conn:
        cursor = await conn.execute(statement.encode())
        return await cursor.fetchall() if cursor.description else []


async def test_the_first_apply_makes_everything_and_the_next_nothing(empty_dsn: str) -> None:
    assert await apply(empty_dsn) == load()
    assert await apply(empty_dsn) == []
    await verify(empty_dsn)


async def test_plan_names_what_apply_would_do_and_changes_nothing(empty_dsn: str) -> None:
    assert await plan(empty_dsn) == load()
    assert await query(empty_dsn, "select to_regnamespace('detent')") == [(None,)]
    await apply(empty_dsn, [FIRST])
    assert await plan(empty_dsn, [FIRST, SECOND]) == [SECOND]


async def test_what_was_applied_is_recorded(empty_dsn: str) -> None:
    await apply(empty_dsn, [FIRST, SECOND])
    recorded = await query(empty_dsn, "select version, name, checksum from detent.schema_migrations order by version")
    assert recorded == [(m.version, m.name, m.checksum) for m in (FIRST, SECOND)]


async def test_an_up_to_date_database_costs_one_query(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await apply(empty_dsn)
    statements: list[object] = []
    execute = AsyncConnection.execute

    async def noting(self: AsyncConnection, statement: psycopg.abc.Query, *rest: object) -> object:
        statements.append(statement)
        return await execute(self, statement, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(AsyncConnection, "execute", noting)
    await apply(empty_dsn)
    assert len(statements) == 1


async def test_many_processes_apply_each_migration_once(empty_dsn: str) -> None:
    applied = await asyncio.gather(*(apply(empty_dsn) for _ in range(8)))
    names = [str(migration) for migrations in applied for migration in migrations]
    assert sorted(names) == [str(migration) for migration in load()]


async def test_an_index_is_built_concurrently_while_others_wait_to_apply(empty_dsn: str) -> None:
    applied = await asyncio.gather(*(apply(empty_dsn, [FIRST, CONCURRENT]) for _ in range(8)))
    assert sum(len(migrations) for migrations in applied) == 2
    assert await query(empty_dsn, "select indisvalid from pg_index where indexrelid = 'detent.ai'::regclass") == [
        (True,)
    ]


async def test_a_failed_migration_leaves_nothing_and_keeps_those_before_it(empty_dsn: str) -> None:
    broken = Migration(version=2, name="broken", sql="create table detent.b (); select 1/0")
    with pytest.raises(MigrationError, match="0002_broken failed: division by zero"):
        await apply(empty_dsn, [FIRST, broken])
    assert await query(empty_dsn, "select to_regclass('detent.a') is null, to_regclass('detent.b') is null") == [
        (False, True)
    ]
    assert await apply(empty_dsn, [FIRST, SECOND]) == [SECOND]


async def test_a_migration_is_not_stopped_by_the_statement_timeout_of_its_user(empty_dsn: str) -> None:
    slow = Migration(version=1, name="slow", sql="select pg_sleep(0.15)")
    assert await apply(f"{direct(empty_dsn)} options='-c statement_timeout=100ms'", [slow]) == [slow]


async def test_a_schema_that_is_too_old_names_both_versions_and_the_command(empty_dsn: str) -> None:
    with pytest.raises(SchemaVersionError, match=r"at version 0, this detent needs 2: run `detent migrate`"):
        await verify(empty_dsn, [FIRST, SECOND])
    await apply(empty_dsn, [FIRST])
    with pytest.raises(SchemaVersionError) as raised:
        await verify(empty_dsn, [FIRST, SECOND])
    assert (raised.value.found, raised.value.required) == (1, 2)


async def test_a_schema_that_is_too_new_asks_for_a_newer_detent(empty_dsn: str) -> None:
    await apply(empty_dsn, [FIRST, SECOND])
    for operation in (apply, plan, verify):
        with pytest.raises(SchemaVersionError, match="at version 2, this detent needs 1: upgrade the detent package"):
            await operation(empty_dsn, [FIRST])


async def test_a_migration_that_was_applied_with_another_text_is_refused(empty_dsn: str) -> None:
    await apply(empty_dsn, [FIRST])
    changed = Migration(version=1, name="first", sql="create table detent.a (id bigint)")
    for operation in (apply, plan, verify):
        with pytest.raises(SchemaDriftError, match="migration 0001_first was applied with another text"):
            await operation(empty_dsn, [changed])


@pytest.mark.parametrize(
    ("dsn", "target"),
    [
        ("postgresql://me:secret@127.0.0.1:1/shop", "127.0.0.1:1/shop"),
        ("host=/nowhere dbname=shop", "/nowhere:5432/shop"),
        ("nonsense", "the given address"),
    ],
)
async def test_an_unreachable_server_is_named_without_its_password(dsn: str, target: str) -> None:
    with pytest.raises(DatabaseUnreachableError) as raised:
        await apply(dsn)
    assert raised.value.target == target
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_a_database_that_does_not_exist_is_named(empty_dsn: str) -> None:
    with pytest.raises(DatabaseUnreachableError, match='database "nowhere" does not exist'):
        await apply(f"{empty_dsn} dbname=nowhere")


async def test_a_server_older_than_15_is_refused(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "OLDEST_SERVER", 99)
    with pytest.raises(DatabaseVersionError, match=r"detent needs 99 or newer"):
        await verify(empty_dsn)


async def test_a_user_without_rights_is_told_which_are_missing(empty_dsn: str) -> None:
    with pytest.raises(DatabaseRightsError, match="permission denied for database"):
        await apply(f"{direct(empty_dsn)} options='-c role=pg_monitor'")
    await apply(empty_dsn, [FIRST])
    with pytest.raises(DatabaseRightsError, match="permission denied for schema detent"):
        await verify(f"{direct(empty_dsn)} options='-c role=pg_monitor'", [FIRST])


async def test_a_user_who_owns_the_schema_needs_no_rights_on_the_database(empty_dsn: str) -> None:
    await query(empty_dsn, "create schema detent authorization pg_monitor")
    assert await apply(f"{direct(empty_dsn)} options='-c role=pg_monitor'", [FIRST, SECOND]) == [FIRST, SECOND]


async def test_a_connection_lost_in_the_midst_is_an_unreachable_server(empty_dsn: str) -> None:
    suicide = Migration(version=1, name="gone", sql="select pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(DatabaseUnreachableError, match="terminating connection"):
        await apply(empty_dsn, [suicide])
