"""Executing runs that wait for something with several tasks, and keep their slots meanwhile.

What comes for them is fetched; one of which nothing goes on is suspended, so that its slot is free.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta

from detent.errors import DetentError
from detent.protocol.fence import Stale
from detent.protocol.ids import RunId
from detent.protocol.waits import Pending, Suspended, Suspension
from detent.worker.attempt import Attempt, Phase
from detent.worker.durable_calls import DurableCalls
from detent.worker.persistence import pauses

STILL_AFTER = 0.1
"""Seconds without a step after which a run suspends that waits for something with several tasks."""
COLLECT_TICKS = 8
"""Beats after which lost news of what executing runs wait for is made good."""
AGAIN_AFTER = 1.0
"""Seconds after which the database is asked once more for what it refused to do."""

log = logging.getLogger("detent.worker")


class Standing:
    """`held`: all runs of this process. `lost` is told which of them is no longer its own."""

    def __init__(
        self,
        calls: DurableCalls,
        held: Mapping[RunId, Attempt],
        *,
        lost: Callable[[Attempt], None],
        run_errand: Callable[[Coroutine[object, object, None]], None],
    ) -> None:
        self._calls, self._held, self._lost, self._run_errand = calls, held, lost, run_errand
        self._loop = asyncio.get_running_loop()
        self._attempts: set[Attempt] = set()
        self._collecting: asyncio.Task[None] | None = None
        self._has_news = False

    def add(self, attempt: Attempt, *, still_after: float = STILL_AFTER) -> None:
        """It waits for something and keeps its slot, for more of it may go on. When nothing does, it suspends."""
        if attempt not in self._attempts:
            self._attempts.add(attempt)
            self._loop.call_later(still_after, self._look_at, attempt, attempt.moves, context=contextvars.Context())
        if self._has_news:
            self.collect()

    def discard(self, attempt: Attempt) -> None:
        self._attempts.discard(attempt)

    def beat(self, tick: int) -> None:
        """Fetch now and then what nobody told of."""
        if self._attempts and tick % COLLECT_TICKS == 0:
            self.collect()

    # ---- what comes for them ----

    def collect(self) -> None:
        """Fetch what came for executing runs that wait for something."""
        self._has_news = True
        if self._attempts and self._collecting is None:
            self._collecting = self._loop.create_task(self._collect_all(), context=contextvars.Context())

    async def _collect_all(self) -> None:
        try:
            while self._has_news and self._attempts:
                self._has_news = False
                holders = [attempt.holder for attempt in self._attempts]
                try:
                    deliveries = await self._calls.collect(holders)
                except DetentError as error:
                    log.error("what came for runs that wait could not be fetched, trying again: %s", error)
                    self._has_news = True
                    return
                for delivery in deliveries:
                    attempt = self._held.get(delivery.holder.run_id)
                    if attempt is not None and attempt.fence == delivery.holder.fence:
                        attempt.collect(delivery.results)
        finally:
            self._collecting = None

    # ---- giving slots back, and taking them again ----

    def _look_at(self, attempt: Attempt, moves: int) -> None:
        if attempt not in self._attempts or attempt.phase is not Phase.EXECUTING or attempt.stop_reason is not None:
            self._attempts.discard(attempt)
            return
        if not attempt.standing:
            self._attempts.discard(attempt)
        elif attempt.moves == moves and attempt.is_standing and attempt.suspending is None:
            self._run_errand(self._suspend(attempt, moves))
        else:
            self._loop.call_later(STILL_AFTER, self._look_at, attempt, attempt.moves, context=contextvars.Context())

    async def _suspend(self, attempt: Attempt, moves: int) -> None:
        """Give the slot of a run back of which nothing goes on."""
        self._attempts.discard(attempt)
        if attempt.moves != moves or not attempt.is_standing:
            # A timer that has ended is none that the database would wake the run for, should this process die; and what was
            # collected just now moves the code on, so that nobody waits any more for what would be waited for.
            self.add(attempt)
            return
        attempt.suspending = self._loop.create_future()
        attempt.timers.catch_up(is_over=True)
        seconds, fence = attempt.timers.until_next(), attempt.fence
        until = None if seconds is None else timedelta(seconds=seconds)
        delivered = tuple(attempt.collected)
        suspension = Suspension(holder=attempt.holder, until=until, delivered=delivered)
        answer: Suspended | Pending | Stale | None = None
        try:
            answer = await self._calls.suspend(suspension)
        except DetentError as error:
            log.error("run %s could not be suspended: %s", attempt.run_id, error)
        finally:
            # Code that goes on, or ends, waits for this.
            attempt.suspending.set_result(None)
            attempt.suspending = None
        if attempt.phase is not Phase.EXECUTING or attempt.fence != fence or attempt.stop_reason is not None:
            return
        if isinstance(answer, Stale):
            self._lost(attempt)
        elif isinstance(answer, Suspended):
            attempt.suspend()
        elif answer is None:
            self.add(attempt, still_after=AGAIN_AFTER)
        else:
            del attempt.collected[: len(delivered)]
            self.collect()
            self.add(attempt)

    async def take_back(self, attempt: Attempt) -> None:
        """Have a suspended run resumed whose code goes on."""
        holder = attempt.holder
        for pause in pauses(AGAIN_AFTER):
            try:
                answer = await self._calls.suspend(Suspension(holder=holder, until=timedelta()))
            except DetentError as error:
                log.error("run %s could not be resumed: %s", attempt.run_id, error)
                await asyncio.sleep(pause)
                if attempt.fence != holder.fence or attempt.stop_reason is not None:
                    return
                continue
            if isinstance(answer, Stale) and attempt.fence == holder.fence and attempt.stop_reason is None:
                self._lost(attempt)
            return
