"""A tick at the moment something falls due that was made just now: the tickers may be asleep for longer than that."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
from collections.abc import Awaitable, Callable

from detent.engine import lifecycle
from detent.errors import DetentError
from detent.protocol.moment import When

LONGEST_SLEEP = 1.0
"""Seconds that a ticker sleeps at most."""
GRID = 0.01
"""Seconds: what falls due within so much of each other is done in one tick."""


class Alarm:
    def __init__(self, tick: Callable[[], Awaitable[float]]) -> None:
        self._tick = tick
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def set(self, due: When | None) -> None:
        """Tick when *due* has come, if no ticker need have looked by then. Dates are left to the tickers."""
        seconds = lifecycle.seconds(due)
        if seconds is None or seconds >= LONGEST_SLEEP:
            return
        loop = asyncio.get_running_loop()
        slot = math.ceil((loop.time() + seconds) / GRID)
        if slot not in self._timers:
            # Not in the context of whoever set it: the timers of a run stand still while it waits.
            self._timers[slot] = loop.call_at(slot * GRID, self._ring, slot, context=contextvars.Context())

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()

    def _ring(self, slot: int) -> None:
        del self._timers[slot]
        task = asyncio.get_running_loop().create_task(self._tick_once())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tick_once(self) -> None:
        with contextlib.suppress(DetentError):  # the tickers will look
            await self._tick()
