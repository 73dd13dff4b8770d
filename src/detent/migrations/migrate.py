"""Apply migrations, tell which are missing, and verify that none is.

Any number of processes may apply at the same time, also through PgBouncer in transaction mode: whoever applies a
migration holds an advisory lock of one transaction. Who does not get it asks again later, from outside a transaction:
a statement that waits for the lock would hold a snapshot, and `create index concurrently` would wait for that forever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import psycopg
from psycopg import AsyncConnection, errors

from detent.errors import MigrationError, SchemaDriftError, SchemaVersionError
from detent.migrations.connection import connect
from detent.migrations.files import Migration, load

LOCK_KEY = int.from_bytes(b"detent")
ASK_AGAIN_SECONDS = 0.05

READ = "select version, checksum from detent.schema_migrations"
CREATE_RECORD = """
create table detent.schema_migrations (
  version integer primary key,
  name text not null,
  checksum text not null,
  applied_at timestamptz not null default clock_timestamp()
)
"""
RECORD = "insert into detent.schema_migrations (version, name, checksum) values (%s, %s, %s)"


async def apply(conninfo: str, migrations: Sequence[Migration] | None = None) -> list[Migration]:
    """Apply what is missing, in order, and return it. One query when nothing is.

    Raises a DatabaseError, also when the schema is newer than this detent or a migration was applied with another text.
    """
    async with connect(conninfo) as connection:
        missing = _missing(await _read(connection), load() if migrations is None else migrations)
        return [migration for migration in missing if await _apply_one(connection, conninfo, migration)]


async def plan(conninfo: str, migrations: Sequence[Migration] | None = None) -> list[Migration]:
    """The migrations that `apply` would apply."""
    async with connect(conninfo) as connection:
        return _missing(await _read(connection), load() if migrations is None else migrations)


async def verify(conninfo: str, migrations: Sequence[Migration] | None = None) -> None:
    """Raise SchemaVersionError unless the schema is the one this detent was made for."""
    required = load() if migrations is None else migrations
    async with connect(conninfo) as connection:
        if missing := _missing(await _read(connection), required):
            raise SchemaVersionError(missing[0].version - 1, required[-1].version)


async def _read(connection: AsyncConnection) -> dict[int, str]:
    """The checksums of the applied migrations by version."""
    try:
        cursor = await connection.execute(READ)
        return dict(await cursor.fetchall())
    except (errors.UndefinedTable, errors.InvalidSchemaName):
        return {}


def _missing(applied: dict[int, str], migrations: Sequence[Migration]) -> list[Migration]:
    newest, required = max(applied, default=0), migrations[-1].version
    if newest > required:
        raise SchemaVersionError(newest, required)
    for migration in migrations:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise SchemaDriftError(str(migration))
    return [migration for migration in migrations if migration.version not in applied]


async def _apply_one(connection: AsyncConnection, conninfo: str, migration: Migration) -> bool:
    """Apply a migration; False when another process has done so in the meantime."""
    async with _alone(connection):
        if await _is_recorded(connection, migration):
            return False
        try:
            await _execute(connection, conninfo, migration)
        except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction):
            raise
        except psycopg.Error as error:
            if connection.closed:
                raise
            raise MigrationError(str(migration), str(error)) from error
        await connection.execute(RECORD, (migration.version, migration.name, migration.checksum))
    return True


@asynccontextmanager
async def _alone(connection: AsyncConnection) -> AsyncIterator[None]:
    """A transaction during which no other process applies a migration."""
    while True:
        async with connection.transaction():
            cursor = await connection.execute("select pg_try_advisory_xact_lock(%s)", (LOCK_KEY,))
            if await cursor.fetchone() == (True,):
                yield
                return
        await asyncio.sleep(ASK_AGAIN_SECONDS)


async def _is_recorded(connection: AsyncConnection, migration: Migration) -> bool:
    """Whether the migration was applied; makes the place where that is recorded."""
    cursor = await connection.execute("select to_regnamespace('detent'), to_regclass('detent.schema_migrations')")
    schema, table = await cursor.fetchone() or (None, None)
    # Not "create schema if not exists": it needs rights on the database even when the schema is there.
    if schema is None:
        await connection.execute("create schema detent")
    if table is None:
        await connection.execute(CREATE_RECORD)
        return False
    cursor = await connection.execute("select from detent.schema_migrations where version = %s", (migration.version,))
    return cursor.rowcount > 0


async def _execute(connection: AsyncConnection, conninfo: str, migration: Migration) -> None:
    if migration.in_transaction:
        await connection.execute("set local statement_timeout = 0")
        await connection.execute(migration.sql.encode())
        return
    # The transaction that holds the lock has no snapshot while it is idle, so nothing waits for it.
    async with connect(conninfo) as outside:
        for statement in migration.statements:
            await outside.execute(statement.encode())
