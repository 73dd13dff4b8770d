"""One connection to PostgreSQL, read by one reader of the event loop.

psycopg opens it, turns values into text and back, and names the errors. What waits for the socket is here: the event loop watches
it once for all calls, not anew for each, which takes half of the CPU time of a small call away.

Calls are answered in their order, and each is a transaction of its own. On a direct connection the next may be sent before
the last is answered (a pipeline), with its statement prepared on the way. Behind a pooler nothing is prepared, and one call
waits for the other.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import psycopg
from psycopg import Pipeline
from psycopg.abc import Buffer
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from detent.engine.sql import Statement

Value: TypeAlias = object
Row: TypeAlias = tuple[object, ...]

_RESULTS = frozenset({ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK})
LOOK_AGAIN = 0.1
"""Seconds after which an answer that does not come is looked for without being told of one: uvloop goes deaf, without a word,
to a socket that was reset."""
_LOST = "the connection to the database was closed during the call"


class Wire:
    """Takes calls on the loop that made it. `is_pooled`: a pooler stands between, so that nothing may be prepared."""

    def __init__(self, connection: psycopg.AsyncConnection[Row], *, is_pooled: bool) -> None:
        self._connection, self._link = connection, connection.pgconn
        self._loop, self._socket = asyncio.get_running_loop(), connection.pgconn.socket
        self._codec = Transformer(connection)
        self._prepared: set[str] = set()
        self._unsent: deque[_Call] = deque()
        self._expected: deque[_Call] = deque()
        self._is_writing = self.is_closed = False
        self._alarm: asyncio.TimerHandle | None = None
        self._has_pipeline = not is_pooled and Pipeline.is_supported()
        if self._has_pipeline:
            self._link.enter_pipeline_mode()
        self._watch(self._loop.add_reader, self._read)

    def call(self, statement: Statement, params: Mapping[str, Value]) -> asyncio.Future[list[Row]]:
        """Send a statement; the future holds its rows, or the `psycopg.Error` that it ended with. Raises one for bad values."""
        values = self._codec.dump_sequence([params[name] for name in statement.names], [PyFormat.TEXT] * len(statement.names))
        call = _Call(statement, values, self._loop.create_future())
        if self.is_closed:
            call.rows.set_exception(psycopg.OperationalError(_LOST))
        else:
            self._unsent.append(call)
            self._send()
        return call.rows

    async def close(self) -> None:
        """Give the connection up, with the calls that are under way."""
        self._end(psycopg.OperationalError(_LOST))
        await self._connection.close()

    # ---- to the server ----

    def _send(self) -> None:
        try:
            while self._unsent and (self._has_pipeline or not self._expected):
                call = self._unsent.popleft()
                self._expected.append(call)
                self._write(call)
            self._flush()
        except psycopg.Error as error:
            self._end(error)
        if self._expected and self._alarm is None:
            self._alarm = self._loop.call_later(LOOK_AGAIN, self._look, context=contextvars.Context())

    def _write(self, call: _Call) -> None:
        statement = call.statement
        if not self._has_pipeline:
            self._link.send_query_params(statement.text, call.values)
            return
        if statement.name not in self._prepared:
            call.prepares = True
            self._prepared.add(statement.name)
            self._link.send_prepare(statement.name.encode(), statement.text)
        self._link.send_query_prepared(statement.name.encode(), call.values)
        self._link.pipeline_sync()

    def _flush(self) -> None:
        """Hand over what the socket takes, the rest when it takes more."""
        has_rest = bool(self._link.flush())
        if has_rest is not self._is_writing:
            self._is_writing = has_rest
            if has_rest:
                self._watch(self._loop.add_writer, self._send)
            else:
                self._loop.remove_writer(self._socket)

    def _watch(self, add: Callable[[int, Callable[[], None]], None], serve: Callable[[], None]) -> None:
        # In no context of a caller, which would live for as long as the connection.
        contextvars.Context().run(add, self._socket, serve)

    # ---- from the server ----

    def _look(self) -> None:
        self._alarm = None
        self._read()
        if self._expected:
            self._send()

    def _read(self) -> None:
        try:
            self._link.consume_input()
            while self._expected and not self._link.is_busy():
                self._take(self._link.get_result())
            if self._unsent:
                self._send()
        except psycopg.Error as error:
            self._end(error)

    def _take(self, result: PGresult | None) -> None:
        """One piece of an answer. A pipeline marks the end of a call; without one, nothing more of it comes."""
        if result is None:
            if not self._has_pipeline:
                self._answer(self._expected.popleft())
        elif result.status == ExecStatus.PIPELINE_SYNC:
            self._answer(self._expected.popleft())
        else:
            self._expected[0].take(result)

    def _answer(self, call: _Call) -> None:
        result = call.result
        if call.prepares and not call.is_prepared:
            self._prepared.discard(call.statement.name)
        if call.rows.done():
            return  # whoever asked waits no more
        try:
            call.rows.set_result(self._rows(result))
        except psycopg.Error as error:
            call.rows.set_exception(error)

    def _rows(self, result: PGresult | None) -> list[Row]:
        if result is None:
            raise psycopg.OperationalError(_LOST)
        if result.status not in _RESULTS:
            raise error_from_result(result, self._codec.encoding)
        self._codec.set_pgresult(result)
        return self._codec.load_rows(0, result.ntuples, tuple)

    def _end(self, error: psycopg.Error) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        calls = [*self._expected, *self._unsent]
        self._expected.clear()
        self._unsent.clear()
        for call in calls:
            if call.result is not None and call.result.status not in _RESULTS:
                self._answer(call)  # the server said why
            elif not call.rows.done():
                call.rows.set_exception(error)


class _Call:
    __slots__ = ("is_prepared", "prepares", "result", "rows", "statement", "values")

    def __init__(self, statement: Statement, values: Sequence[Buffer | None], rows: asyncio.Future[list[Row]]) -> None:
        self.statement, self.values, self.rows = statement, values, rows
        self.result: PGresult | None = None
        self.prepares = self.is_prepared = False

    def take(self, result: PGresult) -> None:
        """Keep the result of the statement, or the first error."""
        if self.prepares and not self.is_prepared and result.status == ExecStatus.COMMAND_OK:
            self.is_prepared = True
        elif self.result is None:
            self.result = result
