"""The log lines of runs on their way to the database: gathered, in order, in bounded memory."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from detent.errors import PayloadError
from detent.protocol import codec
from detent.protocol.backend import WorkerBackend
from detent.protocol.fence import Holder
from detent.protocol.logs import LogLine
from detent.protocol.run_error import clean
from detent.worker.persistence import persistently

RANKS = {"debug": 0, "log": 1, "info": 1, "warn": 2, "error": 3, "none": 4}
"""Levels by importance; a configured level lets through its own rank and those above."""
LONGEST_MESSAGE = 64 * 1024
MOST_LINES = 20_000
MOST_CHARACTERS = 16 * 1024 * 1024
PAUSE = 0.15
"""Seconds for which lines gather."""
_A_CALL = 500

log = logging.getLogger("detent.worker")


class Writer(Protocol):
    """An attempt that logs."""

    @property
    def holder(self) -> Holder: ...
    @property
    def attempt(self) -> int: ...
    @property
    def is_dropped(self) -> bool: ...

    last_line: int
    """The latest of all lines that it wrote, as this module counts them."""


class _Line(NamedTuple):
    position: int
    writer: Writer
    place: str
    number: int
    at: datetime
    level: str
    message: str
    fields: str | None


class LogLines:
    """May be added to from any thread; sends on the loop. When it is full the oldest lines give way."""

    def __init__(self, backend: WorkerBackend, loop: asyncio.AbstractEventLoop) -> None:
        self._append = persistently(backend.append_logs)
        self._loop = loop
        self._lines: deque[_Line] = deque()
        self._positions = itertools.count(1)
        self._sent = 0
        self._characters = 0
        self._dropped = 0
        self._is_scheduled = False
        self._sending = asyncio.Lock()
        self._context = contextvars.Context()
        self._task: asyncio.Task[None] | None = None

    def add(
        self,
        writer: Writer,
        level: str,
        message: str,
        fields: dict[str, object] | None = None,
        *,
        place: str,
        number: int,
    ) -> None:
        text = clip(clean(message))
        position, packed = next(self._positions), _encode(fields) if fields else None
        line = _Line(position, writer, place, number, datetime.now(UTC), level, text, packed)
        self._lines.append(line)
        writer.last_line = position
        self._characters += _weight(line)
        self._drop_oldest()
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon_threadsafe(self._schedule, context=self._context)

    def has_unsent(self, writer: Writer) -> bool:
        return writer.last_line > self._sent

    async def flushed(self, upto: int) -> None:
        """Send what is here, up to a line at least, and return when it has arrived."""
        async with self._sending:
            while self._lines and self._sent < upto:
                taken = self._take()
                await self._send(taken)
                self._sent = max(self._sent, taken[-1].position)

    async def flushed_all(self) -> None:
        await self.flushed(self._lines[-1].position if self._lines else 0)

    def _schedule(self) -> None:
        self._loop.call_later(PAUSE, self._start, context=self._context)

    def _start(self) -> None:
        self._is_scheduled = False
        self._task = self._loop.create_task(self.flushed_all())

    def _take(self) -> list[_Line]:
        taken = [self._lines.popleft() for _ in range(min(_A_CALL, len(self._lines)))]
        self._characters -= sum(_weight(line) for line in taken)
        return [*self._notice(taken[0]), *taken]

    def _notice(self, first: _Line) -> list[_Line]:
        dropped, self._dropped = self._dropped, 0
        if not dropped:
            return []
        text = f"{dropped:,} lines were dropped here: the worker's runs log faster than lines can be stored"
        return [first._replace(place=f"{first.place}!", level="warn", message=text, fields=None)]

    async def _send(self, lines: list[_Line]) -> None:
        try:
            await self._append([_stored(line) for line in lines if not line.writer.is_dropped])
        except Exception:  # a line that cannot be stored must not stop the runs that log
            log.exception("%d log lines could not be stored", len(lines))

    def _drop_oldest(self) -> None:
        while len(self._lines) > MOST_LINES or self._characters > MOST_CHARACTERS:
            self._characters -= _weight(self._lines.popleft())
            self._dropped += 1


def _weight(line: _Line) -> int:
    return len(line.message) + len(line.fields or "")


def clip(text: str) -> str:
    """Return *text* cut to the longest message that is kept.

    >>> clip("short")
    'short'
    """
    if len(text) <= LONGEST_MESSAGE:
        return text
    return f"{text[:LONGEST_MESSAGE]}… ({len(text) - LONGEST_MESSAGE:,} more characters)"


def _stored(line: _Line) -> LogLine:
    return LogLine(
        holder=line.writer.holder,
        attempt=line.writer.attempt,
        place=line.place,
        number=line.number,
        at=line.at,
        level=line.level,
        message=line.message,
        fields=line.fields,
    )


def _encode(fields: dict[str, object]) -> str:
    try:
        return codec.encode(fields, what="the fields of a log line", limit=LONGEST_MESSAGE)
    except PayloadError:
        return codec.encode(dict(_as_texts(fields.items())), what="the fields of a log line")


def _as_texts(items: Iterable[tuple[str, object]]) -> Iterable[tuple[str, str]]:
    return ((clean(str(name)), clip(clean(str(value)))) for name, value in items)
