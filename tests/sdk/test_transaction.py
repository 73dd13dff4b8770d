"""Triggers inside the caller's own transaction: there with its commit, and never there without."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import asyncpg
import django.conf
import pytest
import sqlalchemy
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from detent import Client, Debounce, PayloadError, TaskPayloadParsedError, runs, task, tasks
from detent.engine.backend import EngineBackend
from detent.protocol.flow import DebounceMode, Debouncing
from detent.protocol.idempotency import Idempotency
from detent.protocol.ids import new_run_id
from detent.protocol.triggering import TriggerRequest
from detent.sdk.task import Task
from detent.sdk.transaction import to_options

Open: TypeAlias = Callable[[str, bool], AbstractContextManager[object]]
OpenAsync: TypeAlias = Callable[[str, bool], AbstractAsyncContextManager[object]]
"""Opens a connection with a transaction on it, which is committed or rolled back."""


def parts(dsn: str) -> dict[str, str]:
    return {name: str(value) for name, value in conninfo_to_dict(dsn).items()}


def sqlalchemy_url(dsn: str, driver: str) -> sqlalchemy.URL:
    found = parts(dsn)
    return sqlalchemy.URL.create(
        f"postgresql+{driver}", username=found["user"], password=found.get("password"), database=found["dbname"],
        query={"host": found["host"], "port": found["port"]},
    )  # fmt: skip


@contextmanager
def by_psycopg(dsn: str, is_committed: bool) -> Iterator[object]:
    with Connection.connect(dsn) as connection:
        yield connection
        if not is_committed:
            connection.rollback()


@contextmanager
def by_psycopg_with_dicts(dsn: str, is_committed: bool) -> Iterator[object]:
    with Connection.connect(dsn, row_factory=dict_row) as connection:
        yield connection
        if not is_committed:
            connection.rollback()


@contextmanager
def by_sqlalchemy_connection(dsn: str, is_committed: bool) -> Iterator[object]:
    engine = sqlalchemy.create_engine(sqlalchemy_url(dsn, "psycopg"))
    with engine.connect() as connection:
        yield connection
        if is_committed:
            connection.commit()
    engine.dispose()


@contextmanager
def by_sqlalchemy_session(dsn: str, is_committed: bool) -> Iterator[object]:
    engine = sqlalchemy.create_engine(sqlalchemy_url(dsn, "psycopg"))
    with Session(engine) as session:
        yield session
        if is_committed:
            session.commit()
    engine.dispose()


@contextmanager
def by_django(dsn: str, is_committed: bool) -> Iterator[object]:
    from django.db import connections, transaction

    if not django.conf.settings.configured:
        django.conf.settings.configure()
        django.setup()
    found = parts(dsn)
    connections.settings = connections.configure_settings(
        {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": found["dbname"], "USER": found["user"],
                     "PASSWORD": found.get("password", ""), "HOST": found["host"], "PORT": found["port"]}}
    )  # fmt: skip
    with transaction.atomic():
        yield connections["default"]
        transaction.set_rollback(not is_committed)
    connections["default"].close()
    del connections["default"]


@asynccontextmanager
async def by_async_psycopg(dsn: str, is_committed: bool) -> AsyncIterator[object]:
    async with await AsyncConnection.connect(dsn) as connection:
        yield connection
        if not is_committed:
            await connection.rollback()


@asynccontextmanager
async def by_asyncpg(dsn: str, is_committed: bool) -> AsyncIterator[object]:
    found = parts(dsn)
    connection = await asyncpg.connect(
        host=found["host"], port=int(found["port"]), user=found["user"], database=found["dbname"],
        password=found.get("password"),
    )  # fmt: skip
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await (transaction.commit() if is_committed else transaction.rollback())
    await connection.close()


@asynccontextmanager
async def by_async_sqlalchemy_connection(dsn: str, is_committed: bool) -> AsyncIterator[object]:
    engine = create_async_engine(sqlalchemy_url(dsn, "asyncpg"))
    async with engine.connect() as connection:
        yield connection
        if is_committed:
            await connection.commit()
    await engine.dispose()


@asynccontextmanager
async def by_async_sqlalchemy_session(dsn: str, is_committed: bool) -> AsyncIterator[object]:
    engine = create_async_engine(sqlalchemy_url(dsn, "psycopg"))
    async with AsyncSession(engine) as session:
        yield session
        if is_committed:
            await session.commit()
    await engine.dispose()


BLOCKING: list[Open] = [by_psycopg, by_psycopg_with_dicts, by_sqlalchemy_connection, by_sqlalchemy_session, by_django]
ASYNC: list[OpenAsync] = [by_async_psycopg, by_asyncpg, by_async_sqlalchemy_connection, by_async_sqlalchemy_session]


@pytest.fixture
def ship() -> Task[dict[str, int], None, ..., object]:
    @task
    async def ship(parcel: dict[str, int]) -> None: ...

    return ship


async def found(engine: EngineBackend, run_id: str) -> bool:
    from detent.protocol.ids import RunId

    (record,) = await engine.retrieve_runs([RunId(run_id)])
    return record is not None


@pytest.mark.parametrize("is_committed", [True, False])
@pytest.mark.parametrize("connecting", BLOCKING)
def test_a_run_shares_the_end_of_a_blocking_transaction(
    home: str, ship: Task[dict[str, int], None, ..., object], connecting: Open, is_committed: bool
) -> None:
    assert list(runs.sync.list()) == []  # makes the environment
    with connecting(home, is_committed) as connection:
        handle = ship.sync.trigger({"n": 1}, connection=connection, tags="a")
        again = tasks.sync.trigger("ship", {"n": 1}, connection=connection)
        assert list(runs.sync.list()) == []
    listed = {run.id: (run.payload, run.tags) for run in runs.sync.list()}
    assert listed == ({handle.id: ({"n": 1}, ("a",)), again.id: ({"n": 1}, ())} if is_committed else {})


@pytest.mark.parametrize("is_committed", [True, False])
@pytest.mark.parametrize("connecting", ASYNC)
async def test_a_run_shares_the_end_of_an_async_transaction(
    engine: EngineBackend, home: str, ship: Task[dict[str, int], None, ..., object], connecting: OpenAsync,
    is_committed: bool,
) -> None:  # fmt: skip
    assert not await found(engine, new_run_id())  # makes the environment
    async with connecting(home, is_committed) as connection:
        handle = await ship.trigger({"n": 1}, connection=connection)
        assert not await found(engine, handle.id)
    assert await found(engine, handle.id) is is_committed


async def test_an_idempotency_key_gives_the_run_that_has_it(home: str) -> None:
    first = await tasks.trigger("ship", {}, idempotency_key="k")
    async with await AsyncConnection.connect(home) as connection:
        second = await tasks.trigger("ship", {}, idempotency_key="k", connection=connection)
    assert (second.id, second.is_cached) == (first.id, True)


async def test_debounced_triggers_join_the_run_that_is_there(home: str) -> None:
    first = await tasks.trigger("ship", {}, debounce=Debounce("doc", "1h"))
    async with await AsyncConnection.connect(home) as connection:
        second = await tasks.trigger("ship", {}, debounce=Debounce("doc", "1h"), connection=connection)
    assert second.id == first.id


async def test_a_client_triggers_in_its_environment(home: str) -> None:
    async with Client(database_url=home, environment="staging") as client:
        async with await AsyncConnection.connect(home) as connection:
            handle = await client.tasks.trigger("ship", {}, connection=connection)
        assert (await client.runs.retrieve(handle.id)).task_id == "ship"


async def test_the_payload_is_checked_before_anything_is_sent(
    home: str, ship: Task[dict[str, int], None, ..., object]
) -> None:
    async with await AsyncConnection.connect(home) as connection:
        with pytest.raises(TaskPayloadParsedError):
            await ship.trigger({"n": "x"}, connection=connection)  # type: ignore[dict-item]
        with pytest.raises(PayloadError):
            await tasks.trigger("ship", float("nan"), connection=connection)


async def test_what_is_no_connection_is_refused() -> None:
    with pytest.raises(TypeError, match="none that detent knows"):
        await tasks.trigger("ship", {}, connection=object())


def test_an_async_connection_is_refused_where_there_is_no_loop() -> None:
    class AsyncLike:
        pass

    AsyncLike.__module__ = "asyncpg.connection"
    with pytest.raises(TypeError, match="await the trigger there"):
        tasks.sync.trigger("ship", {}, connection=AsyncLike())


def test_every_field_of_a_request_becomes_an_option() -> None:
    full = TriggerRequest(
        run_id=new_run_id(), task_id="ship", payload="{}", delay=timedelta(seconds=5), queue="q", concurrency_key="k",
        limits=("l",), priority=1.0, ttl=2.0, version="v", max_attempts=3, max_duration=4.0, tags=("t",), metadata='{"m":1}',
        idempotency=Idempotency(key="h", user_key="u", scope="run", ttl=timedelta(seconds=6)),
        debounce=Debouncing(key="d", delay=timedelta(seconds=7), mode=DebounceMode.TRAILING, max_delay=timedelta(seconds=8)),
    )  # fmt: skip
    options = to_options(full, "dev")
    del options["id"]
    assert options == {
        "environment": "dev", "queue": "q", "concurrency_key": "k", "concurrency": ("l",), "priority": 1.0, "tags": ("t",),
        "metadata": {"m": 1}, "delay": 5.0, "ttl": 2.0, "version": "v", "max_attempts": 3, "max_duration": 4.0,
        "idempotency": {"key": "h", "user_key": "u", "scope": "run", "key_ttl": 6.0},
        "debounce": {"debounce": "d", "debounce_delay": 7.0, "most_delay": 8.0, "trails": True},
    }  # fmt: skip
    moment = datetime(2099, 1, 1, tzinfo=UTC)
    dated = to_options(TriggerRequest(run_id=new_run_id(), task_id="ship", delay=moment), "dev")
    assert dated["starts_at"] == moment.isoformat()
