"""What happens to code that should have ended: out of time, cancelled, or dropped, and still there."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

from detent.errors import MaxDurationExceededError
from detent.protocol import run_error
from detent.protocol.attempts import TimedOut
from detent.protocol.run_error import ErrorCode
from detent.worker.attempt import Attempt, Phase, Stop

SIGNAL_GRACE = 30.0
"""Seconds that a cancelled run has when it watches its signal, or is a thread, which nothing can stop."""
END_GRACE = 5.0
"""Seconds for code to end after it was interrupted; then its runner is poisoned."""


class Overrun:
    """The timers of one runner's attempts; there are none for a run without `max_duration` that nobody stops."""

    def __init__(
        self,
        *,
        fence: Callable[[TimedOut], None],
        poison: Callable[[Attempt], None],
        takes_signal: Callable[[Attempt], bool],
    ) -> None:
        self._fence, self._poison, self._takes_signal = fence, poison, takes_signal

    def watch(self, attempt: Attempt) -> None:
        """Start the clock of an attempt, or go on with it after a wait."""
        most = attempt.lease.max_duration
        if most is not None and attempt.stop_reason is None:
            self._later(attempt, max(0.0, most - attempt.elapsed), lambda: self._time_out(attempt, most))

    def unwatch(self, attempt: Attempt) -> None:
        if attempt.timer is not None:
            attempt.timer.cancel()
            attempt.timer = None

    def cancel(self, attempt: Attempt, reason: str, *, has_hooks: bool = False) -> None:
        """The run is CANCELED in the database: tell its code, which may still clean up.

        `has_hooks`: its `on_cancel` is being called, and its code interrupted after that (`hooks_ended`).
        """
        if attempt.stop_reason is not None:
            return
        attempt.cancel(reason)
        attempt.is_fenced = True
        if attempt.is_threaded:
            attempt.interrupt()
            self._await_end(attempt, SIGNAL_GRACE)
        elif has_hooks or self._takes_signal(attempt):
            self._later(attempt, SIGNAL_GRACE, lambda: self._interrupt(attempt))
        else:
            self._interrupt(attempt)

    def hooks_ended(self, attempt: Attempt) -> None:
        """What its `on_cancel` was waited for is done."""
        if attempt.phase is not Phase.ENDED and not attempt.is_threaded and not self._takes_signal(attempt):
            self._interrupt(attempt)

    def evict(self, attempt: Attempt) -> None:
        attempt.evict()
        self._await_end(attempt, SIGNAL_GRACE if attempt.is_threaded else END_GRACE)

    def drop(self, attempt: Attempt) -> None:
        attempt.drop()
        self._await_end(attempt, SIGNAL_GRACE if attempt.is_threaded else END_GRACE)

    def _time_out(self, attempt: Attempt, seconds: float) -> None:
        if attempt.is_done:
            return
        error = MaxDurationExceededError(attempt.run_id, seconds)
        attempt.stop(Stop.OVERRUN, error)
        self._fence(TimedOut(holder=attempt.holder, error=run_error.internal(ErrorCode.MAX_DURATION, str(error))))
        self._interrupt(attempt)

    def _interrupt(self, attempt: Attempt) -> None:
        attempt.interrupt()
        self._await_end(attempt, END_GRACE)

    def _await_end(self, attempt: Attempt, seconds: float) -> None:
        self._later(attempt, seconds, lambda: self._give_up(attempt))

    def _give_up(self, attempt: Attempt) -> None:
        if attempt.phase is not Phase.ENDED:
            self._poison(attempt)

    def _later(self, attempt: Attempt, seconds: float, act: Callable[[], None]) -> None:
        self.unwatch(attempt)
        attempt.timer = asyncio.get_running_loop().call_later(seconds, act, context=_NO_RUN)


_NO_RUN = contextvars.Context()
