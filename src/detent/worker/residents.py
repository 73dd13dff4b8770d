"""Which waiting runs stay in a runner's memory: so many, and while there is memory; the one that waits longest goes first."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

import psutil

from detent.worker.attempt import Attempt

CHECKED_EVERY = 1.0
"""Seconds between looks at the memory of the process."""
_SHARE = 10
"""A tenth of the residents goes when memory is short."""


class Residents:
    """The attempts that wait. `evict` ends the code of one; its memory is free when it has ended."""

    def __init__(self, most: int, most_bytes: int, evict: Callable[[Attempt], None]) -> None:
        self._most, self._most_bytes, self._evict = most, most_bytes, evict
        self._waiting: dict[Attempt, None] = {}
        self._process = psutil.Process()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, attempt: Attempt) -> None:
        """It waits from now on, longer than none of the others."""
        self._waiting[attempt] = None
        self.let_go(len(self._waiting) - self._most)
        if self._timer is None and self._waiting:
            self._look_later()

    def remove(self, attempt: Attempt) -> None:
        self._waiting.pop(attempt, None)

    def let_go(self, count: int) -> None:
        """Evict those that have waited longest."""
        for _ in range(min(count, len(self._waiting))):
            attempt = next(iter(self._waiting))
            del self._waiting[attempt]
            self._evict(attempt)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(CHECKED_EVERY, self._look, context=contextvars.Context())

    def _look(self) -> None:
        self._timer = None
        if self._process.memory_info().rss > self._most_bytes:
            self.let_go(max(1, len(self._waiting) // _SHARE))
        if self._waiting:
            self._look_later()


def memory_share(runners: int) -> int:
    """Return the bytes that one of so many runners may take: they leave a third of the machine, or container, to others."""
    return int(_memory() * 2 / 3) // max(1, runners)


def _memory() -> int:
    whole = psutil.virtual_memory().total
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="ascii") as file:
                return min(whole, int(file.read()))
        except (OSError, ValueError):
            continue
    return whole
