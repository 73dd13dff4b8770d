"""One connection spoken to through libpq, and what the calls above it make of its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest
import uvloop
from psycopg import AsyncConnection, errors

from detent.engine.db import Db, open_connection
from detent.engine.wire import Call, Statement, Value, Wire
from detent.errors import ApiConnectionError, BadRequestError
from tests.pooler import direct

BACKENDS = "select pid from pg_stat_activity where datname = current_database() and application_name = 'detent'"
BLOCKED = f"{BACKENDS} and wait_event_type = 'Lock'"
FIND = ("find_environment", {"slug": "dev"})
LOCK = "lock table detent.environments in access exclusive mode"


def call(text: str, **params: Value) -> Call:
    return Call(Statement.parse(text[:60], text.encode()), params)


@asynccontextmanager
async def opened(dsn: str, *, prepares: bool = True) -> AsyncIterator[Wire]:
    wire = Wire(await open_connection(direct(dsn)), prepares=prepares)
    try:
        yield wire
    finally:
        wire.close()


@pytest.fixture(params=[True, False], ids=["prepared", "plain"])
async def wire(dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[Wire]:
    async with opened(dsn, prepares=request.param) as wire:
        yield wire


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Db]:
    db = Db(direct(dsn), size=1, patience=5.0)
    await db.call("make_environment", {"slug": "dev"})
    yield db
    await db.close()


async def blocked(conn: AsyncConnection) -> int:
    """Wait until a call waits for a lock; return its backend."""
    async with asyncio.timeout(5):
        while True:
            await conn.execute("select pg_stat_clear_snapshot()")  # else a transaction sees the same all along
            if row := await (await conn.execute(BLOCKED)).fetchone():
                return int(row[0])


# ---- values

VALUES = [
    ("text", "größe 😀 \\ ' \" {} $1 %s"),
    ("text", ""),
    ("text", None),
    ("integer", -5),
    ("bigint", 2**63 - 1),
    ("double precision", 1e300),
    ("double precision", float("inf")),
    ("boolean", True),
    ("boolean", False),
    ("uuid", UUID(int=7)),
    ("uuid[]", [UUID(int=7), UUID(int=8)]),
    ("text[]", ["a,b", 'c"d', "e\\f", "", "NULL", "ü", "{}"]),
    ("text[]", []),
    ("bigint[]", [1, 2**62]),
    ("timestamptz", datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=UTC)),
]


@pytest.mark.parametrize(("kind", "value"), VALUES)
async def test_a_value_comes_back_as_it_was_given(wire: Wire, kind: str, value: Value) -> None:
    for _ in range(2):
        assert await wire.execute(call(f"select %(value)s::{kind}", value=value)) == [(value,)]


async def test_json_is_read_and_what_has_no_rows_gives_none(wire: Wire) -> None:
    assert await wire.execute(call("select %(value)s::json, '[1]'::jsonb", value='{"a": [1, null]}')) == [
        ({"a": [1, None]}, [1])
    ]
    assert await wire.execute(call("select 1 where false")) == []
    assert await wire.execute(call("create temporary table t (n integer)")) == []
    assert await wire.execute(call("insert into t values (%(n)s) returning n, n", n=5)) == [(5, 5)]


async def test_a_parameter_may_stand_twice_and_a_percent_sign_for_itself(wire: Wire) -> None:
    found = await wire.execute(call("select 7 %% %(a)s, %(b)s::text like 'x%%', %(a)s", a=4, b="xy"))
    assert found == [(3, True, 4)]


async def test_ten_megabytes_go_and_come_while_others_call(dsn: str) -> None:
    big = "ä" * (5 * 1024 * 1024)
    async with opened(dsn) as wire, opened(dsn) as other:
        answers = await asyncio.gather(
            wire.execute(call("select %(big)s::text", big=big)), *[other.execute(call("select 1")) for _ in range(20)]
        )
    assert answers == [[(big,)], *[[(1,)]] * 20]


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
async def test_text_that_postgresql_has_no_place_for_is_a_bad_request(db: Db, text: str) -> None:
    with pytest.raises(BadRequestError):
        await db.call("find_environment", {"slug": text})
    assert await db.call(*FIND) == [(1,)]


# ---- the order of answers


async def test_calls_are_answered_in_their_order_and_one_that_fails_leaves_the_others_alone(wire: Wire) -> None:
    calls = [wire.execute(call("select 12 / %(n)s::integer", n=n)) for n in (1, 0, 2, 0, 3)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [answers[i] for i in (0, 2, 4)] == [[(12,)], [(6,)], [(4,)]]
    assert {type(answers[i]) for i in (1, 3)} == {errors.DivisionByZero}


async def test_a_statement_that_cannot_be_prepared_is_prepared_when_it_can(wire: Wire) -> None:
    for _ in range(2):
        with pytest.raises(errors.UndefinedTable):
            await wire.execute(call("select n from t"))
    await wire.execute(call("create temporary table t (n integer)"))
    assert await wire.execute(call("select n from t")) == []


async def test_what_follows_a_call_happens_though_the_call_fails(wire: Wire) -> None:
    await wire.execute(call("create temporary table t (n integer)"))
    with pytest.raises(errors.DivisionByZero):
        await wire.execute(call("select 1 / 0"), then=call("insert into t values (1)"))
    await wire.execute(call("insert into t values (2)"), then=call("select 1 / 0"))
    await wire.execute(call("insert into t values (3)"), then=call("insert into t values (4)"))
    found = await wire.execute(call("select n from t order by n"))
    # A pooler's wire sends what follows when the call has succeeded.
    assert found == ([(1,), (2,), (3,), (4,)] if wire.prepares else [(2,), (3,), (4,)])


# ---- ends


async def test_a_server_process_that_ends_fails_every_call_on_its_way(wire: Wire, conn: AsyncConnection) -> None:
    async with conn.transaction():
        await conn.execute(LOCK)
        calls = [asyncio.ensure_future(wire.execute(call("select from detent.environments"))) for _ in range(3)]
        await conn.execute("select pg_terminate_backend(%s)", [await blocked(conn)])
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(answer, psycopg.OperationalError) for answer in answers)
    assert not wire.is_open


async def test_a_call_whose_server_process_ends_is_repeated(db: Db, conn: AsyncConnection) -> None:
    async with conn.transaction():
        await conn.execute(LOCK)
        found = asyncio.ensure_future(db.call(*FIND))
        await conn.execute("select pg_terminate_backend(%s)", [await blocked(conn)])
    assert await found == [(1,)]


async def test_a_connection_that_ended_while_nobody_called_costs_no_call(db: Db, conn: AsyncConnection) -> None:
    await conn.execute(f"select pg_terminate_backend(pid, 5000) from ({BACKENDS}) as backend")
    (wire,) = db._idle
    async with asyncio.timeout(5):
        while wire.is_open:  # noqa: ASYNC110 - the turn in which the loop notices
            await asyncio.sleep(0)
    assert await db.call(*FIND, patience=0.0) == [(1,)]


async def test_a_cancelled_call_leaves_nothing_behind_for_the_next(db: Db, conn: AsyncConnection) -> None:
    async with conn.transaction():
        await conn.execute(LOCK)
        cancelled = asyncio.ensure_future(db.call(*FIND))
        await blocked(conn)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    assert await db.call("find_environment", {"slug": "other"}) == []


async def test_lost_prepared_statements_are_done_without(db: Db) -> None:
    (wire,) = db._idle
    await db.call(*FIND)
    await wire.execute(call("deallocate all"))
    assert [await db.call(*FIND) for _ in range(3)] == [[(1,)]] * 3


async def test_a_closed_client_takes_no_calls_and_fails_those_on_their_way(dsn: str, conn: AsyncConnection) -> None:
    db = Db(direct(dsn), size=1)
    async with conn.transaction():
        await conn.execute(LOCK)
        found = asyncio.ensure_future(db.call(*FIND))
        await blocked(conn)
        waiting = asyncio.ensure_future(db.call(*FIND))
        await asyncio.sleep(0)
        await db.close()
    assert await found == []
    with pytest.raises(ApiConnectionError, match="is closed"):
        await waiting


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_every_kind_of_loop_serves(dsn: str, loop_factory: asyncio.AbstractEventLoop) -> None:
    async def work() -> object:
        db = Db(direct(dsn))
        found = await asyncio.gather(*[db.call("make_environment", {"slug": str(n)}) for n in range(20)])
        await db.close()
        return found

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(work()) == [[]] * 20
