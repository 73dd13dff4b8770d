"""`runs.logs`: what a run has logged and printed, from wherever it is read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, cast

from detent.errors import NotFoundError
from detent.protocol import codec
from detent.protocol.codec import JsonValue
from detent.protocol.ids import RunId
from detent.sdk.blocking import blocking
from detent.sdk.target import Target

if TYPE_CHECKING:
    from detent.protocol.logs import StoredLog

PAGE = 1000
FOLLOW_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLog:
    """A line that a run has logged or printed."""

    attempt: int
    at: datetime
    level: str
    message: str
    fields: dict[str, JsonValue]


class RunLogs:
    """The lines of a run, in order, for `async for`."""

    label = "runs.logs"

    def __init__(self, target: Target, run_id: RunId, *, is_following: bool) -> None:
        self._target, self._run_id, self._is_following = target, run_id, is_following
        self._seen = 0

    async def __aiter__(self) -> AsyncIterator[RunLog]:
        while lines := await self.read():
            for line in lines:
                yield line

    def in_thread(self) -> Iterator[RunLog]:
        """Yield the same by blocking calls."""
        while lines := blocking(self.read)():
            yield from lines

    async def read(self) -> list[RunLog]:
        """Return the next lines; none when there are no more, nor will be if they are followed. Raises `NotFoundError`."""
        while True:
            # Asked first: what is written by the end is there afterwards.
            is_over = await self._is_over()
            lines = await self._target.connection().backend.read_logs(self._run_id, after=self._seen - 1, limit=PAGE)
            if lines or is_over or not self._is_following:
                self._seen += len(lines)
                return [_read(line) for line in lines]
            await self._pause()

    async def _is_over(self) -> bool:
        record = await self._target.connection().retrieve(self._run_id)
        if record is None:
            raise NotFoundError(f"there is no run {self._run_id} in this environment", code="run_not_found")
        return record.status.is_final

    async def _pause(self) -> None:
        """Wait until there may be more: the end is announced, lines are not."""
        import asyncio

        watch = self._target.connection().watch
        end = watch.expect(self._run_id)
        try:
            await watch.look([self._run_id])
            ended, _ = await asyncio.wait([end], timeout=FOLLOW_SECONDS)
        finally:
            end.cancel()
        for each in ended:
            each.result()  # raises when the connection was closed meanwhile


def _read(line: StoredLog) -> RunLog:
    fields = {} if line.fields is None else cast("dict[str, JsonValue]", codec.decode(line.fields))
    return RunLog(attempt=line.attempt, at=line.at, level=line.level, message=line.message, fields=fields)
