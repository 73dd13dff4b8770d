"""A connection and its calls, against the server."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from psycopg import errors

from detent.engine.db import open_connection
from detent.engine.sql import Statement
from detent.engine.wire import Wire
from detent.worker.timers import new_loop
from tests.pooler import direct

ECHO = Statement(name="echo", text=b"select $1::text", names=("word",))
PID = Statement(name="pid", text=b"select pg_backend_pid()", names=())
DIVIDE = Statement(name="divide", text=b"select 1 / $1::integer", names=("by",))
BROKEN = Statement(name="broken", text=b"select nothing from nowhere", names=())
MANY = Statement(name="many", text=b"select n from generate_series(1, $1::integer) as n", names=("most",))
ENDLESS = Statement(name="endless", text=b"select 'infinity'::timestamptz", names=())
SLEEP = Statement(name="sleep", text=b"select pg_sleep(60)", names=())

variable = contextvars.ContextVar[object]("variable")


@asynccontextmanager
async def wired(dsn: str, *, is_pooled: bool = False) -> AsyncIterator[Wire]:
    wire = Wire(await open_connection(direct(dsn)), is_pooled=is_pooled)
    try:
        yield wire
    finally:
        await wire.close()


@pytest.fixture(params=[False, True], ids=["direct", "pooled"])
async def wire(dsn: str, request: pytest.FixtureRequest, nothing_kept: None) -> AsyncIterator[Wire]:
    async with wired(dsn, is_pooled=request.param) as opened:
        yield opened


async def test_calls_under_way_at_once_are_answered_each_with_its_own(wire: Wire) -> None:
    rows = await asyncio.gather(*(wire.call(ECHO, {"word": str(n)}) for n in range(200)))
    assert rows == [[(str(n),)] for n in range(200)]


async def test_a_call_that_fails_leaves_those_around_it_alone(wire: Wire) -> None:
    before, failed, after = wire.call(DIVIDE, {"by": 1}), wire.call(DIVIDE, {"by": 0}), wire.call(ECHO, {"word": "on"})
    assert await before == [(1,)]
    with pytest.raises(errors.DivisionByZero):
        await failed
    assert await after == [("on",)]
    assert not wire.is_closed


async def test_a_statement_that_cannot_be_prepared_fails_each_time_it_is_called(wire: Wire) -> None:
    for _ in range(2):
        with pytest.raises(errors.UndefinedTable):
            await wire.call(BROKEN, {})
    assert await wire.call(ECHO, {"word": "on"}) == [("on",)]


async def test_a_value_that_no_text_can_be_made_of_sends_nothing(wire: Wire) -> None:
    with pytest.raises(psycopg.Error):
        wire.call(ECHO, {"word": object()})
    with pytest.raises(psycopg.DataError):
        wire.call(ECHO, {"word": "\0"})
    assert await wire.call(ECHO, {"word": "on"}) == [("on",)]


async def test_rows_that_python_cannot_hold_fail_their_call_alone(wire: Wire) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(psycopg.DataError):
            await wire.call(ENDLESS, {})
        assert await wire.call(ECHO, {"word": "on"}) == [("on",)]


async def test_what_is_larger_than_the_socket_takes_arrives_whole(wire: Wire) -> None:
    word = "x" * 20_000_000
    first, second = wire.call(ECHO, {"word": word}), wire.call(ECHO, {"word": "small"})
    assert await first == [(word,)]
    assert await second == [("small",)]


async def test_many_rows_come_in_order(wire: Wire) -> None:
    assert await wire.call(MANY, {"most": 50_000}) == [(n,) for n in range(1, 50_001)]


async def test_a_caller_that_waits_no_more_does_not_disturb_the_next(wire: Wire) -> None:
    given_up = wire.call(ECHO, {"word": "unheard"})
    given_up.cancel()
    assert await wire.call(ECHO, {"word": "heard"}) == [("heard",)]


async def test_a_server_that_ends_the_connection_fails_all_that_is_under_way_and_says_why(
    wire: Wire, conn: psycopg.AsyncConnection
) -> None:
    ((pid,),) = await wire.call(PID, {})
    first, second = wire.call(SLEEP, {}), wire.call(ECHO, {"word": "behind"})
    await conn.execute("select pg_terminate_backend(%s)", (pid,))
    with pytest.raises(errors.AdminShutdown):
        await first
    with pytest.raises(psycopg.OperationalError):
        await second
    assert wire.is_closed


async def test_an_end_while_nothing_is_under_way_is_noticed(wire: Wire, conn: psycopg.AsyncConnection) -> None:
    ((pid,),) = await wire.call(PID, {})
    await conn.execute("select pg_terminate_backend(%s, 5000)", (pid,))
    async with asyncio.timeout(5):
        while not wire.is_closed:  # noqa: ASYNC110 - nothing is told of it
            await asyncio.sleep(0)
    with pytest.raises(psycopg.OperationalError):
        await wire.call(ECHO, {"word": "late"})


async def test_closing_fails_what_is_under_way(wire: Wire) -> None:
    call = wire.call(SLEEP, {})
    await wire.close()
    with pytest.raises(psycopg.OperationalError):
        await call


async def test_it_keeps_nothing_of_the_context_that_opened_it(dsn: str, nothing_kept: None) -> None:
    class Held:
        pass

    held = Held()
    reference = weakref.ref(held)
    token = variable.set(held)
    async with wired(dsn) as wire:
        variable.reset(token)
        await wire.call(ECHO, {"word": "on"})
        del held, token
        gc.collect()
        assert reference() is None


@pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop")
def test_an_event_loop_that_goes_deaf_to_a_socket_that_was_reset_does_not_leave_callers_waiting(dsn: str) -> None:
    """A server that ends with calls unread resets the connection, of which uvloop tells nobody."""

    async def cut_off() -> None:
        async with wired(dsn) as wire, asyncio.timeout(5):
            ((pid,),) = await wire.call(PID, {})
            calls = [wire.call(SLEEP, {}), wire.call(ECHO, {"word": "behind"})]
            with psycopg.connect(direct(dsn), autocommit=True) as other:
                other.execute("select pg_terminate_backend(%s)", (pid,))
            for call in calls:
                with pytest.raises(psycopg.OperationalError):
                    await call

    loop = new_loop()
    try:
        loop.run_until_complete(cut_off())
    finally:
        loop.close()
