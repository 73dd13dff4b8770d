"""A proxy between an engine and its database that cuts the connection when a certain statement was executed."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from detent.engine.sql import STATEMENTS

NAMES = {statement.text: name for name, statement in STATEMENTS.items()}


class When(Enum):
    AFTER_COMMIT = "the statement is done, and its answer on the way"
    AT_ONCE = "the statement has been sent, and is executed all the same"


@dataclass(slots=True)
class Proxy:
    dsn: str
    """Leads to the same database, through here."""
    server: dict[str, str]
    executed: list[str] = field(default_factory=list)
    target: str | None = None
    when: When = When.AFTER_COMMIT
    before: Callable[[], Awaitable[None]] | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def cut(
        self, target: str, when: When = When.AFTER_COMMIT, before: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Cut the next connection that executes the statement *target*, once; and do something else just before."""
        self.target, self.when, self.before = target, when, before

    def noticed(self, statement: str) -> bool:
        """Note that a statement is executed; say whether its connection is to be cut."""
        self.executed.append(statement)
        if statement != self.target:
            return False
        self.target = None
        return True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            await Connection(self, reader, writer).carry()
        finally:
            self.tasks.discard(task)


@asynccontextmanager
async def proxy_to(dsn: str) -> AsyncIterator[Proxy]:
    server = {key: str(value) for key, value in conninfo_to_dict(dsn).items()}
    with tempfile.TemporaryDirectory(prefix="detent-cut-", dir="/tmp") as folder:
        proxy = Proxy(make_conninfo(dsn, host=folder, port="5432"), server)
        listener = await asyncio.start_unix_server(proxy.serve, str(Path(folder) / ".s.PGSQL.5432"))
        try:
            yield proxy
        finally:
            listener.close()
            await asyncio.wait_for(asyncio.gather(*proxy.tasks), 5)


class Connection:
    """One client and its server, message by message (the protocol's frames: a letter, a length, the rest)."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy, self.reader, self.writer = proxy, reader, writer
        self.prepared: dict[bytes, str] = {}
        self.bound = ""
        self.is_doomed = False

    async def carry(self) -> None:
        self.server_reader, self.server_writer = await self._connect()
        back = asyncio.create_task(self._answers())
        try:
            await self._startup()
            while True:
                kind, body = await _message(self.reader)
                is_cut = self._look(kind, body)
                if is_cut and self.proxy.before is not None:
                    await self.proxy.before()
                self.server_writer.write(kind + (len(body) + 4).to_bytes(4, "big") + body)
                self.is_doomed |= is_cut
                if is_cut and self.proxy.when is When.AT_ONCE:
                    self.server_writer.write(b"S\0\0\0\4")  # the Sync that makes the server end and commit
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.server_writer.close()
        finally:
            self.writer.close()
            await back
            self.server_writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self.proxy.server.get("host", "localhost"), self.proxy.server.get("port", "5432")
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, int(port))

    async def _startup(self) -> None:
        length = await self.reader.readexactly(4)
        self.server_writer.write(length + await self.reader.readexactly(int.from_bytes(length, "big") - 4))

    def _look(self, kind: bytes, body: bytes) -> bool:
        match kind:
            case b"P":
                name, text, _ = body.split(b"\0", 2)
                self.prepared[name] = NAMES.get(text, "")
            case b"B":
                _, name, _ = body.split(b"\0", 2)
                self.bound = self.prepared[name]
            case b"E" if self.bound:
                return self.proxy.noticed(self.bound)
            case _:
                pass
        return False

    async def _answers(self) -> None:
        """Pass answers on; from a cut on, none, and after the one that says that all is committed, nothing at all."""
        try:
            while True:
                kind, body = await _message(self.server_reader)
                if self.is_doomed and kind == b"Z":
                    self.writer.close()
                    break
                if not self.is_doomed:
                    self.writer.write(kind + (len(body) + 4).to_bytes(4, "big") + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.writer.close()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind = await reader.readexactly(1)
    length = int.from_bytes(await reader.readexactly(4), "big")
    return kind, await reader.readexactly(length - 4)
