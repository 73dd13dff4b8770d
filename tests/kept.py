"""Connections to a database that outlive the test, because a new one is dear.

A new process of PostgreSQL compiles and plans each of detent's functions anew: 40 ms of CPU for what a test of the engine
calls, more than for anything else in it. So a connection that detent closes while nothing is under way there goes to whoever
opens the next.
"""

from __future__ import annotations

import functools
import os
import select
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from detent.engine.db import Row, open_connection
from tests.pooler import direct

Connection = psycopg.AsyncConnection[Row]

MOST = 8


class Keeper:
    """Keeps connections to one database; what leads through a pooler is left to the pooler."""

    def __init__(self, dsn: str) -> None:
        self._dsn, self._pid, self._is_on = dsn, os.getpid(), direct(dsn) == dsn
        self._idle: list[Connection] = []

    async def open(self, conninfo: str) -> Connection:
        """What `open_connection` does, with what is kept."""
        if not self._keeps(conninfo):
            return await open_connection(conninfo)
        while self._idle:
            connection = self._idle.pop()
            if _is_quiet(connection):
                connection.pgconn.exec_(b"deallocate all")  # the names are its former user's
                return connection
            connection.pgconn.finish()
        connection = await open_connection(conninfo)
        connection.close = functools.partial(self._close, connection, connection.close)
        return connection

    @contextmanager
    def off(self) -> Iterator[None]:
        """Close what is kept, and keep nothing for as long as this lasts."""
        before, self._is_on = self._is_on, False
        self.drop()
        try:
            yield
        finally:
            self._is_on = before

    def _keeps(self, conninfo: str) -> bool:
        return self._is_on and conninfo == self._dsn and os.getpid() == self._pid

    async def _close(self, connection: Connection, close: Callable[[], Awaitable[None]]) -> None:
        if self._keeps(self._dsn) and _is_quiet(connection) and len(self._idle) < MOST:
            if connection.pgconn.pipeline_status != PipelineStatus.OFF:
                connection.pgconn.exit_pipeline_mode()
            self._idle.append(connection)
        else:
            await close()

    def drop(self) -> None:
        while self._idle:
            self._idle.pop().pgconn.finish()


def _is_quiet(connection: Connection) -> bool:
    """Whether nothing is under way, and the server has not hung up."""
    if connection.pgconn.transaction_status != TransactionStatus.IDLE:
        return False
    readable, _, _ = select.select([connection.pgconn.socket], [], [], 0)
    return not readable
