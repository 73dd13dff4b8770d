"""`heartbeats`: letting others have their turn in a loop that computes."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

from detent.sdk import scope as run_scope

TURN_EVERY = 0.01
"""Seconds that a loop may compute between two turns of the event loop: a neighbour's answer is late by no more than that."""


class Heartbeats:
    """No run needs them in order to be known alive: that is the supervisor's work, in a process of its own. They are for the
    neighbours on the event loop, and so that a cancel and the end of `max_duration` get through."""

    label = "heartbeats"

    def __init__(self) -> None:
        self.sync = HeartbeatsSync()
        self._turned_at = 0.0

    async def yield_(self) -> None:
        """Let the event loop turn, if that was 10 ms ago; else do next to nothing.

        Call it in every round of a loop that computes. It raises `CancelledError` when the run was told to end.

        Example::

            for row in rows:
                await heartbeats.yield_()
                crunch(row)
        """
        if time.monotonic() - self._turned_at < TURN_EVERY:
            return
        from asyncio import sleep

        await sleep(0)
        self._turned_at = time.monotonic()

    def last(self) -> datetime:
        """Return when the event loop of the present runner last turned, to within a quarter of a second.

        Raises `OutsideRunError` outside of runs.
        """
        scope = run_scope.require("heartbeats.last")
        return datetime.now(UTC) - timedelta(seconds=time.monotonic() - scope.last_turn)


class HeartbeatsSync(threading.local):
    """`heartbeats` for tasks written as `def`; each thread has turns of its own."""

    _turned_at = 0.0

    def yield_(self) -> None:
        """Let other threads go on, if that was 10 ms ago; else do next to nothing.

        It raises `RunCancelledError` or `MaxDurationExceededError` when the run was told to end: nothing else stops a thread that
        computes.

        Example::

            for row in rows:
                heartbeats.sync.yield_()
                crunch(row)
        """
        if time.monotonic() - self._turned_at < TURN_EVERY:
            return
        scope = run_scope.current()
        if scope is not None:
            scope.check()
        time.sleep(0)
        self._turned_at = time.monotonic()


heartbeats = Heartbeats()
