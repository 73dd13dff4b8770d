"""Databases for tests: cloned from a template that is migrated once, and emptied between tests."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import psycopg
from psycopg import Connection, errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from detent.migrations import apply, load
from tests.pooler import Pooler, direct

# Of the embedded server; kept across runs, and shared by all processes that test this checkout.
FOLDER = Path(__file__).parent.parent / ".detent-test"
TEMPLATE_PREFIX = "detent_template_"
DATABASE_PREFIX = "detent_test_"
TEMPLATE_LOCK = int.from_bytes(b"template")

# What tests add to a migrated database: a clock that can be moved, and a way to empty all tables that hold something.
TESTING_SCHEMA = b"""
create schema testing;

-- With a key, because detent's functions do without sequential scans: one that cannot be avoided looks so dear that
-- PostgreSQL as it comes would compile every call of the clock.
create table testing.clock (is_only boolean primary key default true check (is_only), shift interval not null);
insert into testing.clock (shift) values ('0');

create or replace function detent.now() returns timestamptz language sql volatile parallel safe as
$$ select clock_timestamp() + (select shift from testing.clock where is_only) $$;

-- A table that was vacuumed is filled again from its front, and what a test inserts is read in another order than it came.
do $$
declare
  candidate regclass;
begin
  for candidate in select oid from pg_class where relnamespace = 'detent'::regnamespace and relkind = 'r' loop
    execute format('alter table %s set (autovacuum_enabled = off)', candidate);
  end loop;
end $$;

-- Rows are deleted, because what is truncated has to be planned anew by every connection, which takes longer than a test. A
-- table of more than two pages is truncated, so that no test pays for the rows of all before it. As a replica, because then
-- neither foreign keys nor the guard of transitions have a say in the order.
create function testing.reset() returns void language plpgsql set session_replication_role = replica as $$
declare
  candidate regclass;
  is_filled boolean;
  is_long boolean;
begin
  for candidate in
    select oid from pg_class
    where relnamespace = 'detent'::regnamespace and relkind = 'r' and relname <> 'schema_migrations'
  loop
    execute format('select exists (select from %s)', candidate) into is_filled;
    if is_filled then
      execute format('lock table %s in access exclusive mode', candidate);
      is_long := pg_relation_size(candidate) > 16384;
      execute format(case when is_long then 'truncate %s cascade' else 'delete from %s' end, candidate);
    end if;
  end loop;
  perform setval(oid::regclass, 1, false) from pg_class where relnamespace = 'detent'::regnamespace and relkind = 'S';
  update testing.clock set shift = '0' where shift <> '0';
end $$;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A PostgreSQL that may be filled with databases."""

    dsn: str
    pooler: Pooler | None = None
    """What detent reaches the databases through, if it does not do so directly."""

    def dsn_of(self, database: str) -> str:
        return make_conninfo(self.dsn, dbname=database)

    @contextmanager
    def new_database(self, template: str = "template0") -> Iterator[str]:
        """The dsn of a new database, which is dropped afterwards, whoever is still connected."""
        name = f"{DATABASE_PREFIX}{os.getpid()}_{secrets.token_hex(3)}"
        with self.admin() as admin:
            _create(admin, name, template)
        try:
            dsn = self.dsn_of(name)
            yield dsn if self.pooler is None else self.pooler.before(dsn)
        finally:
            with self.admin() as admin:
                _drop(admin, name)

    @contextmanager
    def admin(self) -> Iterator[Connection]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            yield connection

    def template(self) -> str:
        """The name of the database that is migrated and ready to be cloned, made if it is not there."""
        texts = "".join(migration.checksum for migration in load()).encode() + TESTING_SCHEMA
        name = TEMPLATE_PREFIX + hashlib.sha256(texts).hexdigest()[:12]
        with self.admin() as admin:
            admin.execute("select pg_advisory_lock(%s)", (TEMPLATE_LOCK,))
            _drop_leftovers(admin)
            if name not in _databases(admin, TEMPLATE_PREFIX):
                self._make_template(admin, name)
        return name

    def _make_template(self, admin: Connection, name: str) -> None:
        for outdated in _databases(admin, TEMPLATE_PREFIX):
            _drop(admin, outdated)
        new = f"{TEMPLATE_PREFIX}new"
        _create(admin, new, "template0")
        migrate(self.dsn_of(new))
        with psycopg.connect(self.dsn_of(new), autocommit=True) as connection:
            connection.execute(TESTING_SCHEMA)
        admin.execute(sql.SQL("alter database {} rename to {}").format(sql.Identifier(new), sql.Identifier(name)))


class OpenTransactionError(AssertionError):
    """A test left a transaction open that holds locks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A clone of the template that one test after the other uses."""

    dsn: str
    connection: Connection

    def reset(self) -> None:
        """Empty it; raises OpenTransactionError when somebody still holds locks, after throwing them out."""
        try:
            self.connection.execute("select testing.reset()")
        except errors.LockNotAvailable:
            self.connection.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
            self.connection.execute("select testing.reset()")
            raise OpenTransactionError("the test left a transaction open that holds locks") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """What `detent.now()` says in a test's database: the real time, moved."""

    connection: Connection

    def advance(self, by: timedelta) -> None:
        self.connection.execute("update testing.clock set shift = shift + %s", (by,))

    def now(self) -> datetime:
        (now,) = self.connection.execute("select detent.now()").fetchone() or ()
        assert isinstance(now, datetime)
        return now


@contextmanager
def open_database(dsn: str) -> Iterator[Database]:
    with psycopg.connect(direct(dsn), autocommit=True, options="-c lock_timeout=3s") as connection:
        yield Database(dsn=dsn, connection=connection)


def server_at(dsn: str, pooler: Pooler | None = None) -> Server:
    return Server(dsn=make_conninfo(dsn, dbname=conninfo_to_dict(dsn).get("dbname") or "postgres"), pooler=pooler)


def hurry(dsn: str) -> None:
    """Have a server not wait for its disk: what tests leave there need not survive a power cut."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("alter system set fsync = off")
        admin.execute("select pg_reload_conf()")


def migrate(dsn: str) -> None:
    # In a thread, because the test's own event loop may be the current one of this thread.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(apply(dsn))).result()


def _create(admin: Connection, name: str, template: str) -> None:
    statement = sql.SQL("create database {} template {}")
    admin.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))


def _drop(admin: Connection, name: str) -> None:
    admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def _drop_leftovers(admin: Connection) -> None:
    """Drop what test processes left that were killed."""
    _drop(admin, f"{TEMPLATE_PREFIX}new")
    for name in _databases(admin, DATABASE_PREFIX):
        if not psutil.pid_exists(int(name.split("_")[2])):
            _drop(admin, name)


def _databases(admin: Connection, prefix: str) -> list[str]:
    rows = admin.execute("select datname from pg_database where starts_with(datname, %s)", (prefix,))
    return [name for (name,) in rows]
