"""Wake-ups over LISTEN and NOTIFY: hints that save a poll, never the truth.

A NOTIFY inside a commit serialises committers, so it is sent afterwards in a transaction of its own: the first at once, in the
same packet where that can be, those after it gathered for 5 ms. One that is lost is made good by polling.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import cast
from uuid import UUID

import psycopg

from detent.engine.db import PAUSES, Call, Db, Row, open_connection
from detent.engine.pooler import is_pooled
from detent.errors import DetentError
from detent.protocol import ids
from detent.protocol.ids import RunId, SessionId
from detent.protocol.status import RunStatus
from detent.protocol.wake_ups import Wake

GATHER_SECONDS = 0.005
QUIET_SECONDS = 1.0
_IDS_A_NOTICE = 150
"""Of 36 characters each: the payload of a NOTIFY must stay under 8,000 bytes."""

log = logging.getLogger("detent.engine")


class Notifier:
    """Sends what happened to whoever listens to the environment."""

    def __init__(self, db: Db) -> None:
        self._db = db
        self._ready = 0
        self._resumed: set[UUID] = set()
        self._cancelled: list[UUID] = []
        self._finished: list[UUID] = []
        self._unsent: deque[str] = deque()
        self._environment = 0
        self._task: asyncio.Task[None] | None = None
        self.local: Callable[[Wake], bool] | None = None

    def notify(
        self,
        environment: int,
        *,
        ready: int = 0,
        tasks: Collection[str] = (),
        resumed: UUID | None = None,
        cancelled: UUID | None = None,
        finished: UUID | None = None,
    ) -> None:
        self._environment = environment
        if (ready or resumed) and self.local is not None and self.local(_wake(ready, tasks, resumed)):
            return
        self._ready += ready
        if resumed:
            self._resumed.add(resumed)
        if cancelled:
            self._cancelled.append(cancelled)
        if finished:
            self._finished.append(finished)
        if self._task is None and (self._ready or self._resumed or self._cancelled or self._finished):
            self._task = asyncio.get_running_loop().create_task(self._send(), context=contextvars.Context())

    def escort(self, environment: int, ready: int) -> Call | None:
        """Return what to send behind the statement that makes runs ready; None: `notify` when it has."""
        if not ready or self.local is not None or self._task is not None:
            return None
        self._environment = environment
        self._task = asyncio.get_running_loop().create_task(self._gather(), context=contextvars.Context())
        return "notify", {"channel": channel(environment), "notice": _ready_notice(ready)}

    async def close(self) -> None:
        """Send what is left, also when the loop is ending and has cancelled the task that would have."""
        if self._task is not None:
            await asyncio.wait([self._task])
        await self._flush()

    async def _gather(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        await self._send()

    async def _send(self) -> None:
        try:
            while await self._flush():  # noqa: ASYNC110 - it gathers; there is nothing to be told
                await asyncio.sleep(GATHER_SECONDS)
        finally:
            self._task = None

    async def _flush(self) -> bool:
        self._unsent += self._take()
        sent = bool(self._unsent)
        try:
            while self._unsent:
                notice = {"channel": channel(self._environment), "notice": self._unsent[0]}
                await self._db.call("notify", notice, patience=1.0)
                self._unsent.popleft()
        except DetentError:
            self._unsent.clear()  # the database is away: whoever waits for this hint polls
        return sent

    def _take(self) -> list[str]:
        ready, self._ready = self._ready, 0
        resumed, self._resumed = list(self._resumed), set()
        cancelled, self._cancelled = self._cancelled, []
        finished, self._finished = self._finished, []
        notices = [_ready_notice(ready)] if ready else []
        for key, found in (("s", resumed), ("c", cancelled), ("f", finished)):
            starts = range(0, len(found), _IDS_A_NOTICE)
            notices += [json.dumps({key: [value.hex for value in found[i : i + _IDS_A_NOTICE]]}) for i in starts]
        return notices


def announce(notifier: Notifier, environment: int, rows: Sequence[Row]) -> dict[str, RunStatus]:
    """Tell others what settling runs did to them; return the new status of each settled run by its hex id."""
    settled: dict[str, RunStatus] = {}
    ready, notify = 0, notifier.notify
    for what, run_id, status, session_id, is_watched in rows:
        run, session = cast("UUID", run_id), cast("UUID | None", session_id)  # no run where a lane was opened
        match what:
            case "settled":
                settled[run.hex] = RunStatus(str(status))
                if is_watched:
                    notify(environment, finished=run)
                if status == "CANCELED" and session:
                    notify(environment, cancelled=run)
            case "woken" if session:
                notify(environment, resumed=session)
            case _:
                ready += 1
    if ready:
        notify(environment, ready=ready)
    return settled


def _ready_notice(ready: int) -> str:
    return json.dumps({"r": ready})


def channel(environment: int) -> str:
    return f"detent_{environment}"


@asynccontextmanager
async def listening(conninfo: str, environment: int) -> AsyncIterator[AsyncIterator[Wake]]:
    """Give the wake-ups of an environment, from before the block is entered."""
    connection = await _open(conninfo, environment)
    wakes = _wakes(conninfo, environment, connection)
    try:
        yield wakes
    finally:
        await wakes.aclose()
        if connection is not None:
            await connection.close()  # a generator that was never asked closes nothing


async def _open(conninfo: str, environment: int) -> psycopg.AsyncConnection[tuple[object, ...]] | None:
    try:
        connection = await open_connection(conninfo)
    except psycopg.Error:
        return None
    try:
        if await is_pooled(connection):
            _say_polling()  # who listens here hears nothing, which is told as an empty wake-up a second
        else:
            await connection.execute(f"listen {channel(environment)}".encode())
    except BaseException as error:
        await connection.close()
        if isinstance(error, psycopg.Error):
            return None
        raise
    return connection


async def _wakes(
    conninfo: str, environment: int, connection: psycopg.AsyncConnection[tuple[object, ...]] | None
) -> AsyncGenerator[Wake]:
    tries = 0
    try:
        while True:
            if connection is None:
                await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
                connection = await _open(conninfo, environment)
                tries = 0 if connection else tries + 1
                yield Wake()
                continue
            try:
                is_quiet = True
                async for notice in connection.notifies(timeout=QUIET_SECONDS, stop_after=1):
                    is_quiet = False
                    yield _decode(notice.payload)
                if is_quiet:
                    yield Wake()
            except psycopg.Error:
                await connection.close()
                connection = None
    finally:
        if connection is not None:
            await connection.close()


@functools.cache
def _say_polling() -> None:
    log.warning(
        "the database is behind a pooler, which passes no wake-ups on: what is new is found by polling, within seconds; "
        "name a direct connection to it in DETENT_LISTEN_URL"
    )


def _wake(ready: int, tasks: Collection[str], resumed: UUID | None) -> Wake:
    return Wake(ready=ready, task_ids=tuple(tasks), resumed=(SessionId(ids.encode("session", resumed)),) if resumed else ())


def _decode(notice: str) -> Wake:
    found = json.loads(notice)
    return Wake(
        ready=found.get("r", 0),
        resumed=tuple(SessionId(ids.encode("session", UUID(h))) for h in found.get("s", ())),
        cancelled=tuple(RunId(ids.encode("run", UUID(h))) for h in found.get("c", ())),
        finished=tuple(RunId(ids.encode("run", UUID(h))) for h in found.get("f", ())),
    )
