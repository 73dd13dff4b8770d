"""Connections to PostgreSQL, and calls that outlive a lost one.

Every engine operation is one statement in autocommit: one round trip, no session state. A call that a lost connection
interrupted is repeated, told so by `is_repeat`; each operation is written so that a repeat doubles nothing.

Lock order, everywhere: schedules by id, session, runs by falling id (a child before its parent, whom its end wakes), batches and
waitpoints by id, waits, runs that wake. Rows of the ready queue stand outside of it: a lease locks them before its runs, so
everybody else passes over the locked ones. What still meets crosswise is undone by PostgreSQL as a deadlock and repeated here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import tuple_row

from detent.engine import faults
from detent.engine.pooler import is_pooled
from detent.engine.sql import STATEMENTS, Statement
from detent.engine.wire import Row as Row
from detent.engine.wire import Value as Value
from detent.engine.wire import Wire
from detent.errors import ApiConnectionError, BadRequestError, ConfigError, DetentError, InternalServerError

Call: TypeAlias = tuple[str, Mapping[str, Value]]

_DEFAULTS = {
    "application_name": "detent",
    "connect_timeout": "10",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
FIRST_PATIENCE = 2.0
PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_REPEATED_ERRORS = (pg.DeadlockDetected, pg.SerializationFailure, pg.LockNotAvailable)
_PREPARED_ERRORS = (pg.InvalidSqlStatementName, pg.DuplicatePreparedStatement)
_connect = psycopg.AsyncConnection.connect
"""As it was before an instrumentation of the user's, which is for the connections of tasks, has replaced it."""


class Db:
    """A few connections to one database, for one event loop. `patience`: seconds a call goes on repeating; None: for ever."""

    def __init__(self, conninfo: str, *, size: int = 2, patience: float | None = 15.0) -> None:
        self.conninfo, self.patience = _checked(conninfo), patience
        self._idle: list[Wire] = []
        self._room = asyncio.Semaphore(size)
        self._is_closed = self._was_connected = self._is_pooled = False

    async def call(
        self, name: str, params: Mapping[str, Value], *, patience: float | None = None, behind: Call | None = None
    ) -> list[Row]:
        """Execute a named statement and return its rows.

        `behind`: a call that goes out in the same packet, of whose end nobody hears. Raises `ApiConnectionError` when the
        database stays out of reach, `BadRequestError` for a value it refuses.
        """
        given, started, tries = dict(params), time.monotonic(), 0
        while True:
            try:
                rows = await self._execute(STATEMENTS[name], given, behind)
                if faults.active is not None:
                    faults.pass_point(faults.active, name)
                return rows
            except _PREPARED_ERRORS:
                # A pooler that hands out other servers: live without prepared statements from here on.
                self._is_pooled = True
                await self._close_idle()
            except _REPEATED_ERRORS:
                pass
            except (psycopg.OperationalError, psycopg.InterfaceError, ConnectionResetError) as error:
                if "is_repeat" in given:
                    given["is_repeat"] = True
                await self._pause(tries, started, patience or self.patience, error)
            except psycopg.DataError as error:
                raise BadRequestError(f"{name} was refused by the database: {error}", code="invalid_value") from error
            except psycopg.Error as error:
                if not _was_misrouted(error):
                    raise InternalServerError(f"{name} failed in the database: {error}", code="database") from error
            tries += 1

    async def close(self) -> None:
        self._is_closed = True
        await self._close_idle()

    async def _execute(self, statement: Statement, params: Mapping[str, Value], behind: Call | None) -> list[Row]:
        async with self._room:
            wire = await self._checkout()
            try:
                answer = wire.call(statement, params)
                if behind is not None:
                    wire.call(STATEMENTS[behind[0]], behind[1]).add_done_callback(_pass_over)
                rows = await answer
            except psycopg.Error:
                await self._return(wire)
                raise
            except BaseException:
                # Cancelled in the midst of a call: how long the connection is still busy with it is unknown.
                await wire.close()
                raise
            await self._return(wire)
            return rows

    async def _checkout(self) -> Wire:
        if self._is_closed:
            raise ApiConnectionError("this client is closed; open another")
        while self._idle:
            wire = self._idle.pop()
            if not wire.is_closed:
                return wire
            await wire.close()
        connection = await open_connection(self.conninfo)
        try:
            if not self._was_connected and await is_pooled(connection):
                self._is_pooled = True
        except BaseException:
            await connection.close()
            raise
        self._was_connected = True
        return Wire(connection, is_pooled=self._is_pooled)

    async def _return(self, wire: Wire) -> None:
        if wire.is_closed or self._is_closed:
            await wire.close()
        else:
            self._idle.append(wire)

    async def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for wire in idle:
            await wire.close()

    async def _pause(self, tries: int, started: float, patience: float | None, error: Exception) -> None:
        await self._close_idle()
        if self._is_closed:
            raise ApiConnectionError("this client was closed during the call") from error
        if patience is not None and not self._was_connected:
            # It never answered: more likely a wrong address than a restart.
            patience = min(patience, FIRST_PATIENCE)
        if patience is not None and time.monotonic() - started > patience:
            # The first line says why; those after it quote the statement that was interrupted.
            message = f"the database is out of reach: {str(error).strip().partition(chr(10))[0]}"
            raise ApiConnectionError(message, code="database_unreachable") from error
        await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])


async def open_connection(conninfo: str) -> psycopg.AsyncConnection[Row]:
    return await _connect(
        make_conninfo(conninfo, **_missing(conninfo)), autocommit=True, prepare_threshold=None, row_factory=tuple_row
    )


def _was_misrouted(error: psycopg.Error) -> bool:
    """Whether a row was on its way to the rest of a shelf when the partition that it belongs to was attached.

    The rest then refuses it, by a constraint without a name; at the next try it goes where it belongs.
    """
    return isinstance(error, pg.CheckViolation) and error.diag.constraint_name is None


def _missing(conninfo: str) -> dict[str, str]:
    """Return the defaults that the user's own parameters leave open: a peer that is gone without a word is noticed."""
    given = conninfo_to_dict(conninfo)
    return {name: value for name, value in _DEFAULTS.items() if name not in given}


def _checked(conninfo: str) -> str:
    try:
        conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError as error:
        message = f"the database URL cannot be read: {str(error).strip()}; one looks like postgresql://user@host/name"
        raise ConfigError(message) from error
    return conninfo


def _pass_over(answer: asyncio.Future[list[Row]]) -> None:
    if not answer.cancelled():
        answer.exception()  # looked at, or the event loop would complain


def one(rows: Sequence[Row]) -> Row:
    if len(rows) != 1:
        raise DetentError(f"a statement that answers with one row gave {len(rows)}")
    return rows[0]
