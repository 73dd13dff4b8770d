"""One connection, spoken to through libpq: statements in a pipeline, each in a transaction of its own.

psycopg connects, writes the values and reads the rows. Between these its `execute` takes locks, enters the loop with a reader
for each wait and keeps the state of a cursor: 46 µs of a call's CPU. Here a reader stays in the loop as long as the
connection lives, and a call is 15 µs.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

Value: TypeAlias = object
Row: TypeAlias = tuple[object, ...]

_PARAMETER = re.compile(rb"%\((\w+)\)s|%%")
_ROWS = frozenset({ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK})


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as the server reads it: `%(name)s` has become `$1`, the values go by `parameters`."""

    name: bytes
    text: bytes
    parameters: tuple[str, ...]
    formats: tuple[PyFormat, ...]

    @classmethod
    def parse(cls, name: str, text: bytes) -> Statement:
        numbers: dict[str, int] = {}

        def number(found: re.Match[bytes]) -> bytes:
            if found[1] is None:
                return b"%"
            return b"$%d" % numbers.setdefault(found[1].decode(), len(numbers) + 1)

        numbered = _PARAMETER.sub(number, text)
        return cls(name.encode(), numbered, tuple(numbers), (PyFormat.TEXT,) * len(numbers))


@dataclass(frozen=True, slots=True)
class Call:
    statement: Statement
    params: Mapping[str, Value]


class _Pending:
    """What was sent up to one Sync, and what has come back of it."""

    __slots__ = ("answer", "error", "preparing", "result")

    def __init__(self, answer: asyncio.Future[PGresult | None], preparing: bytes | None) -> None:
        self.answer, self.preparing = answer, preparing
        self.result: PGresult | None = None
        self.error: psycopg.Error | None = None

    def settle(self, lost: psycopg.Error | None = None) -> None:
        error = self.error or lost
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(self.result)
        else:
            self.answer.set_exception(error)


class Wire:
    """Answers come in the order of the calls. One that is lost fails all its calls, and says so by `is_open`."""

    def __init__(self, connection: psycopg.AsyncConnection[Row], *, prepares: bool) -> None:
        self._connection, self.prepares = connection, prepares
        self._pgconn: PGconn = connection.pgconn
        self._fd = self._pgconn.socket
        self._values = Transformer(connection)
        self._loop = asyncio.get_running_loop()
        self._pending: deque[_Pending] = deque()
        self._prepared: set[bytes] = set()
        self._is_writing = False
        self.is_open = True
        self._pgconn.enter_pipeline_mode()
        self._loop.add_reader(self._fd, self._read)

    async def execute(self, call: Call, then: Call | None = None) -> list[Row]:
        """Return the rows of *call*. *then* leaves with it, in a transaction of its own; nobody waits for how it ends.

        Raises psycopg's errors. When it is cancelled the wire is to be closed, for the call goes on.
        """
        try:
            answer = self._send(call)
            if then is not None and self.prepares:
                self._send(then).cancel()
            self._flush()
        except psycopg.OperationalError as error:
            self._lose(error)
            raise
        result = await answer
        if then is not None and not self.prepares:
            self._send_later(then)
        return self._rows(result)

    def close(self) -> None:
        self._lose(psycopg.OperationalError("the connection was closed"))

    def _send(self, call: Call) -> asyncio.Future[PGresult | None]:
        statement = call.statement
        values = self._values.dump_sequence([call.params[name] for name in statement.parameters], statement.formats)
        preparing = None
        if not self.prepares:
            self._pgconn.send_query_params(statement.text, values)
        else:
            if statement.name not in self._prepared:
                preparing = statement.name
                self._pgconn.send_prepare(preparing, statement.text)
                self._prepared.add(preparing)
            self._pgconn.send_query_prepared(statement.name, values)
        self._pgconn.pipeline_sync()
        answer: asyncio.Future[PGresult | None] = self._loop.create_future()
        self._pending.append(_Pending(answer, preparing))
        return answer

    def _send_later(self, call: Call) -> None:
        """A pooler gives its server away at the first Sync, and may not expect a second one behind it."""
        try:
            self._send(call).cancel()
            self._flush()
        except psycopg.OperationalError as error:
            self._lose(error)

    def _flush(self) -> None:
        """Hand what is to be sent to the kernel: the rest of it when it has room again."""
        is_left = self._pgconn.flush() == 1
        if is_left and not self._is_writing:
            self._loop.add_writer(self._fd, self._write)
        elif self._is_writing and not is_left:
            self._loop.remove_writer(self._fd)
        self._is_writing = is_left

    def _write(self) -> None:
        try:
            self._flush()
        except psycopg.OperationalError as error:
            self._lose(error)

    def _read(self) -> None:
        try:
            self._pgconn.consume_input()
            self._take()
        except psycopg.OperationalError as error:
            self._lose(error)

    def _take(self) -> None:
        """Give each call its results, as far as they are here."""
        while self._pending and not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is not None:
                self._sort(result)
            elif self._pgconn.status:
                raise psycopg.OperationalError("the connection is lost")

    def _sort(self, result: PGresult) -> None:
        pending, status = self._pending[0], result.status
        if status == ExecStatus.PIPELINE_SYNC:
            self._pending.popleft().settle()
            return
        if pending.preparing is not None:
            if status != ExecStatus.COMMAND_OK:
                self._prepared.discard(pending.preparing)
            pending.preparing = None
        if status in _ROWS:
            pending.result = result
        elif pending.error is None:
            pending.error = error_from_result(result)

    def _lose(self, error: psycopg.Error) -> None:
        if not self.is_open:
            return
        self.is_open = False
        if not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
        self._pgconn.finish()
        while self._pending:
            self._pending.popleft().settle(error)

    def _rows(self, result: PGresult | None) -> list[Row]:
        if result is None or not result.nfields:
            return []
        self._values.set_pgresult(result)
        return self._values.load_rows(0, result.ntuples, tuple)
