"""What a database lets this machine do: rights, clock, pooler, wake-ups. Asked before its schema is known to be there."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import cast
from uuid import uuid4

import psycopg

from detent.engine.db import Db, one, open_connection
from detent.engine.pooler import is_pooled

HEARING_SECONDS = 2.0


class Hearing(StrEnum):
    """Whether what the database announces is heard where detent listens."""

    HEARD = "heard"
    DEAF = "deaf"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    server_version: str
    user: str
    is_read_only: bool
    may_create: bool
    """The schema is there, or may be made."""
    barred_tables: tuple[str, ...]
    """Tables of detent that this user may not read and write."""
    owners: tuple[str, ...]
    """Whoever else owns the partitions, and alone may make and drop them."""
    clock_ahead: float
    """Seconds that the database's clock is ahead of this machine's."""
    clock_doubt: float
    """How much that may be wrong, for the answer took its time."""
    is_pooled: bool
    hearing: Hearing


async def examine(database_url: str, listen_url: str) -> Reach:
    """Return what a database lets this machine do, which is asked over two connections. Raises `ApiConnectionError`."""
    db = Db(database_url, size=1)
    try:
        await db.call("examine_server", {})  # connects, and prepares: the next answer comes without delay
        asked = time.time()
        version, user, is_read_only, may_create, barred, owners, moment = one(await db.call("examine_server", {}))
        answered = time.time()
        return Reach(
            server_version=str(version).partition(" ")[0],
            user=str(user),
            is_read_only=bool(is_read_only),
            may_create=bool(may_create),
            barred_tables=tuple(cast("list[str]", barred)),
            owners=tuple(cast("list[str]", owners)),
            clock_ahead=cast("float", moment) - (asked + answered) / 2,
            clock_doubt=(answered - asked) / 2,
            is_pooled=await _is_pooled(database_url),
            hearing=await _hearing(db, listen_url),
        )
    finally:
        await db.close()


async def _is_pooled(database_url: str) -> bool:
    async with await open_connection(database_url) as connection:
        return await is_pooled(connection)


async def _hearing(db: Db, listen_url: str) -> Hearing:
    channel = f"detent_{uuid4().hex}"
    try:
        async with await open_connection(listen_url) as listener:
            if await is_pooled(listener):
                return Hearing.DEAF  # and to listen would burden a server process that others get next
            await listener.execute(f"listen {channel}".encode())
            await db.call("notify", {"channel": channel, "notice": ""})
            async for _ in listener.notifies(timeout=HEARING_SECONDS, stop_after=1):
                return Hearing.HEARD
    except psycopg.Error:
        return Hearing.UNREACHABLE
    return Hearing.DEAF
