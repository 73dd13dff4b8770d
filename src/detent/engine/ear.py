"""One connection that listens. Its reader stays in the loop: a notice is there in the turn in which it arrives."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque

import psycopg

from detent.engine.wire import Row


class Ear:
    def __init__(self, connection: psycopg.AsyncConnection[Row]) -> None:
        self._connection = connection
        self._notices: deque[str] = deque()
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._fd = connection.pgconn.socket
        self._is_open = True

    async def listen(self, channel: str) -> None:
        self._connection.add_notify_handler(lambda notice: self._notices.append(notice.payload))
        await self._connection.execute(f"listen {channel}".encode())
        self.wait()

    def wait(self) -> None:
        """Notice from here on what comes, and the end."""
        # In nobody's context: what is read is not for the run that happened to ask for it.
        contextvars.Context().run(self._loop.add_reader, self._fd, self._read)

    async def hear(self, within: float) -> str | None:
        """Return the next notice, or None when there is none for so many seconds. Raises `OperationalError` at the end."""
        if self._is_open and not self._notices:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._news.wait()
        if self._notices:
            return self._notices.popleft()
        if not self._is_open:
            raise psycopg.OperationalError("the connection that listens is lost")
        return None

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._news.set()
        if not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        self._connection.pgconn.finish()

    def _read(self) -> None:
        pgconn = self._connection.pgconn
        try:
            pgconn.consume_input()
        except psycopg.OperationalError:
            self.close()
            return
        while notice := pgconn.notifies():
            self._notices.append(notice.extra.decode())
            self._news.set()
