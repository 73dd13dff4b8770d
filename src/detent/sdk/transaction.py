"""Triggering inside the caller's own transaction: `select detent.trigger(...)` on the connection that the caller has open.

A connection is known by the module of its class, so that none of its libraries is loaded here. One for blocking code is used at
once, in the calling thread, to which it may belong; one for async code is used when the call is awaited.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Protocol, TypeAlias, cast

from detent.protocol import ids
from detent.protocol.flow import DebounceMode
from detent.protocol.ids import RunId
from detent.protocol.triggering import TriggerRequest
from detent.sdk.blocking import is_on_loop

Params: TypeAlias = tuple[str, str | None, str]
Answer: TypeAlias = object

_POSITIONAL = "select detent.trigger(%s::text, %s::text::json, %s::text::jsonb)"
_NUMBERED = "select detent.trigger($1::text, $2::text::json, $3::text::jsonb)"
_NAMED = "select detent.trigger(cast(:task as text), cast(cast(:payload as text) as json), cast(cast(:options as text) as jsonb))"


class _Cursor(Protocol):
    def execute(self, query: str, params: Params, /) -> object: ...
    def fetchone(self) -> tuple[Answer, ...]: ...
    def close(self) -> object: ...


class _AsyncCursor(Protocol):
    async def execute(self, query: str, params: Params, /) -> object: ...
    async def fetchone(self) -> tuple[Answer, ...]: ...
    async def close(self) -> object: ...


class _DbApi(Protocol):
    """psycopg, psycopg2, Django."""

    def cursor(self) -> _Cursor: ...


class _AsyncDbApi(Protocol):
    """psycopg's async connection."""

    def cursor(self) -> _AsyncCursor: ...


class _Asyncpg(Protocol):
    async def fetchval(self, query: str, *params: object) -> Answer: ...


class _Result(Protocol):
    def scalar_one(self) -> Answer: ...


class _SqlAlchemy(Protocol):
    """A session or a connection."""

    def execute(self, statement: object, params: dict[str, str | None], /) -> _Result: ...


class _AsyncSqlAlchemy(Protocol):
    async def execute(self, statement: object, params: dict[str, str | None], /) -> _Result: ...


def trigger(connection: object, request: TriggerRequest, environment: str) -> Awaitable[RunId]:
    """Make a run in the transaction of *connection*. Raises `TypeError` for one that cannot be used here."""
    params = request.task_id, request.payload, json.dumps(to_options(request, environment))
    use_async, use = _uses_of(connection)
    if use_async is not None:
        if not is_on_loop():
            raise TypeError(f"connection={connection!r} is for async code and belongs to an event loop; await the trigger there")
        return _run_id(use_async(params))
    assert use is not None
    return _ready(_to_run_id(use(params)))


def to_options(request: TriggerRequest, environment: str) -> dict[str, object]:
    """Return the options of `detent.trigger` that make the run which *request* asks for."""
    delay, key, debounce = request.delay, request.idempotency, request.debounce
    if delay is None and debounce is not None:
        delay = debounce.delay
    options: dict[str, object] = {
        "id": ids.to_hex("run", request.run_id),
        "environment": environment,
        "queue": request.queue,
        "concurrency_key": request.concurrency_key,
        "concurrency": request.limits,
        "priority": request.priority or None,
        "tags": request.tags or None,
        "metadata": None if request.metadata is None else json.loads(request.metadata),
        "delay": max(0.0, delay.total_seconds()) if isinstance(delay, timedelta) else None,
        "starts_at": None if delay is None or isinstance(delay, timedelta) else delay.isoformat(),
        "ttl": request.ttl,
        "version": request.version,
        "max_attempts": request.max_attempts,
        "max_duration": request.max_duration,
        "machine": request.machine,
    }
    if key is not None:
        lifetime = key.ttl.total_seconds()
        options["idempotency"] = {"key": key.key, "user_key": key.user_key, "scope": key.scope, "key_ttl": lifetime}
    if debounce is not None:
        options["debounce"] = {
            "debounce": debounce.key,
            "debounce_delay": debounce.delay.total_seconds(),
            "most_delay": None if debounce.max_delay is None else debounce.max_delay.total_seconds(),
            "trails": debounce.mode is DebounceMode.TRAILING,
        }
    return {name: value for name, value in options.items() if value is not None}


_AsyncUse: TypeAlias = Callable[[Params], Awaitable[Answer]]
_Use: TypeAlias = Callable[[Params], Answer]


def _uses_of(connection: object) -> tuple[_AsyncUse | None, _Use | None]:
    """Return how a connection is asked: by async code or by blocking code."""
    modules = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(connection).__mro__}
    libraries = {module.partition(".")[0] for module in modules}
    if "asyncpg" in libraries:
        return lambda params: cast("_Asyncpg", connection).fetchval(_NUMBERED, *params), None
    if "sqlalchemy" in libraries:
        if any(module.startswith("sqlalchemy.ext.asyncio.") for module in modules):
            return lambda params: _by_async_sqlalchemy(cast("_AsyncSqlAlchemy", connection), params), None
        return None, lambda params: _by_sqlalchemy(cast("_SqlAlchemy", connection), params)
    if any(module.startswith("psycopg.") and "Async" in module for module in modules):
        return lambda params: _by_async_cursor(cast("_AsyncDbApi", connection), params), None
    if hasattr(connection, "cursor"):
        return None, lambda params: _by_cursor(cast("_DbApi", connection), params)
    raise TypeError(
        f"connection={connection!r} is none that detent knows: give one of psycopg, asyncpg or Django, "
        "or a connection or session of SQLAlchemy"
    )


def _by_cursor(connection: _DbApi, params: Params) -> Answer:
    cursor = connection.cursor()
    try:
        cursor.execute(_POSITIONAL, params)
        return _first(cursor.fetchone())
    finally:
        cursor.close()


async def _by_async_cursor(connection: _AsyncDbApi, params: Params) -> Answer:
    cursor = connection.cursor()
    try:
        await cursor.execute(_POSITIONAL, params)
        return _first(await cursor.fetchone())
    finally:
        await cursor.close()


def _by_sqlalchemy(connection: _SqlAlchemy, params: Params) -> Answer:
    return connection.execute(_text(), _named(params)).scalar_one()


async def _by_async_sqlalchemy(connection: _AsyncSqlAlchemy, params: Params) -> Answer:
    return (await connection.execute(_text(), _named(params))).scalar_one()


def _text() -> object:
    from sqlalchemy import text

    return text(_NAMED)


def _named(params: Params) -> dict[str, str | None]:
    task_id, payload, options = params
    return {"task": task_id, "payload": payload, "options": options}


def _first(row: tuple[Answer, ...] | dict[str, Answer]) -> Answer:
    """A connection may be set to return rows as dictionaries."""
    return next(iter(row.values())) if isinstance(row, dict) else row[0]


async def _run_id(answer: Awaitable[Answer]) -> RunId:
    return _to_run_id(await answer)


async def _ready(run_id: RunId) -> RunId:
    return run_id


def _to_run_id(answer: Answer) -> RunId:
    return RunId(str(answer))
