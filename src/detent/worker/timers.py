"""The timers of runs: `asyncio.timeout`, `wait_for`, `sleep`. A timer outlives the memory that it was made in.

A run that waits for a token under a time-out of a day must end its wait after a day, wherever it is by then. So while it is
suspended the database knows when its first timer ends, and wakes it then; and a replay gives each timer the deadline it had, and
lets none end before it has given what was given before.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from detent.sdk import scope as run_scope
from detent.worker.path import ROOT, here

_PRUNED_FROM = 64

now = time.monotonic


class Timer:
    """What a run's code gets for a timer: it can be cancelled."""

    __slots__ = ("_args", "_callback", "_context", "_handle", "_timers", "deadline", "delay", "path")

    def __init__(
        self, timers: Timers, delay: float, callback: Callable[..., object], args: tuple[object, ...],
        context: contextvars.Context | None,
    ) -> None:  # fmt: skip
        self._timers, self._callback, self._args = timers, callback, args
        self._context = contextvars.copy_context() if context is None else context
        line = here()
        self.path = ROOT if line is None else line.path.text
        """Where the code was that has set it."""
        self.delay = delay
        self.deadline: float | None = now() + delay
        """By `time.monotonic`; None while a replay does not know it yet."""
        self._handle: asyncio.TimerHandle | None = None

    def start(self, later: Callable[..., asyncio.TimerHandle], seconds: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = later(seconds, self.end, context=_NO_RUN)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._timers.discard(self)

    def cancelled(self) -> bool:
        return self._handle is not None and self._handle.cancelled()

    def when(self) -> float:
        return self._handle.when() if self._handle is not None else 0.0

    def end_early(self) -> None:
        """End it now, if it does not wait for that already."""
        if self._handle is not None:
            self._handle.cancel()
        if self not in self._timers.held:
            self._end_or_wait()

    def end(self) -> None:
        """Its time has come, but in a replay only when this has nothing to give to the code."""
        if self._timers.is_replaying():
            self._timers.at_rest(self._end_or_wait)
        else:
            self._end_or_wait()

    def _end_or_wait(self) -> None:
        """End. A suspended run goes on first: the database wakes it now, too."""
        if self._timers.is_held:
            self._timers.hold(self)
            return
        if not self._timers.discard(self):
            return
        self._timers.ended += 1
        self._context.run(self._callback, *self._args)


class Timers:
    """Those of one attempt that have not ended."""

    __slots__ = ("_is_behind", "_later", "_open", "at_rest", "ended", "held", "is_held", "is_replaying")

    def __init__(self) -> None:
        self._open: dict[Timer, None] = {}
        self.held: list[Timer] = []
        self._later: Callable[..., asyncio.TimerHandle] | None = None
        self._is_behind = False
        self.ended = 0
        """How many did what they were set for."""
        self.is_held = False
        """The run is suspended: no timer of its ends."""
        self.is_replaying: Callable[[], bool] = lambda: False
        self.at_rest: Callable[[Callable[[], None]], None] = lambda end: end()

    def __bool__(self) -> bool:
        return bool(self._open)

    def add(self, later: Callable[..., asyncio.TimerHandle], timer: Timer) -> None:
        self._later = later
        self._open[timer] = None
        if self.is_replaying():
            timer.deadline, self._is_behind = None, True
        timer.start(later, timer.delay)

    def discard(self, timer: Timer) -> bool:
        """Forget one; False when it was ended or cancelled already."""
        if timer not in self._open:
            return False
        del self._open[timer]
        return True

    def hold(self, timer: Timer) -> None:
        self.held.append(timer)

    def release(self) -> None:
        """The run executes: those whose time came meanwhile end now."""
        self.is_held = False
        held, self.held = self.held, []
        for timer in held:
            if timer in self._open:
                timer.end()

    def until_next(self) -> float | None:
        """Return the seconds until the first of them ends."""
        deadlines = [timer.deadline for timer in self._open if timer.deadline is not None]
        return max(0.0, min(deadlines) - now()) if deadlines else None

    # ---- in a replay ----

    def date(self, moment: datetime | None) -> None:
        """The code asks for what was recorded at *moment*: what it has timed just before was timed then."""
        if moment is None:
            return
        # By two clocks, that of the database and this one: one that runs behind must not put the end off.
        past = max(0.0, (datetime.now(UTC) - moment).total_seconds())
        for timer in self._open:
            if timer.deadline is None:
                timer.deadline = now() + timer.delay - past

    def catch_up(self, *, is_over: bool = False) -> None:
        """When the replay is over, have each timer end when it would have ended."""
        if not self._is_behind or (self.is_replaying() and not is_over):
            return
        self._is_behind = False
        for timer in list(self._open):
            if timer.deadline is None:
                timer.deadline = now() + timer.delay
            if self._later is not None:
                timer.start(self._later, max(0.0, timer.deadline - now()))

    def give_up(self, operation: str) -> bool:
        """End the timer for which the code gave *operation* up before its time, or as soon as the run has its slot again.

        That is the first of those set around it, be it by the same task or by one that has started it; False when there is none.
        """
        around = [timer for timer in self._open if operation.startswith(timer.path)]
        first = min(around or self._open, key=lambda timer: timer.deadline or now() + timer.delay, default=None)
        if first is None:
            return False
        first.end_early()
        return True

    def clear(self) -> None:
        for timer in list(self._open):
            timer.cancel()


class HasTimers(Protocol):
    """A run's scope, as the loop sees it."""

    @property
    def timers(self) -> Timers: ...


def of_context(context: contextvars.Context | None) -> Timers | None:
    """Return the timers of the run that *context*, or the present one, belongs to."""
    scope = run_scope.current() if context is None else run_scope.current_in(context)
    return getattr(scope, "timers", None)


class _Timing:
    """Mixed into an event loop: its timers that belong to runs are theirs."""

    def _time(self, later: Callable[..., Any], delay: float, callback: Any, args: Any, context: Any) -> Any:
        timers = of_context(context)
        if timers is None:
            return later(delay, callback, *args, context=context)
        timer = Timer(timers, delay, callback, args, context)
        timers.add(later, timer)
        return timer


def new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop for a runner: uvloop's where there is one."""
    try:
        import uvloop
    except ImportError:
        return _plain_loop()

    class TimingLoop(_Timing, uvloop.Loop):  # type: ignore[misc]
        # `call_at` goes through this one, too.
        def call_later(  # type: ignore[override]
            self, delay: float, callback: Any, *args: Any, context: Any = None
        ) -> Any:
            return self._time(super().call_later, delay, callback, args, context)

    return TimingLoop()


def _plain_loop() -> asyncio.AbstractEventLoop:
    kind: Any = type(asyncio.new_event_loop())

    class TimingLoop(_Timing, kind):  # type: ignore[misc]
        # `call_later` goes through this one, too.
        def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
            def later(delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
                return super(TimingLoop, self).call_at(self.time() + delay, callback, *args, context=context)

            return self._time(later, when - self.time(), callback, args, context)

    loop: asyncio.AbstractEventLoop = TimingLoop()
    return loop


_NO_RUN = contextvars.Context()
