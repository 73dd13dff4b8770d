"""`usage`: for how long a run has executed, and what it has taken, up to now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detent.sdk import scope as run_scope

if TYPE_CHECKING:
    from types import TracebackType

    from detent.sdk.scope import RunScope


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a run has taken. Durations are seconds for which it executed: the queue, waits longer than 5 s and the time between
    attempts are left out; shorter waits are not."""

    attempt_duration: float
    """Of this attempt: what `max_duration` bounds."""
    run_duration: float
    """Of all attempts."""
    cpu_time: float | None = None
    """Seconds of CPU in this process: of a task with `isolation="process"` with its subprocesses that have ended, of a `def` task
    those of its thread. None for `async def` on the event loop, which runs share."""
    peak_memory: int | None = None
    """Bytes that the process had in memory at most; None but for a task with `isolation="process"`."""


class Spent:
    """What a block of code has taken: up to now while it goes on, and as a whole after it."""

    def __init__(self, scope: RunScope) -> None:
        self._scope = scope
        self._begin = scope.usage()
        self._end: Usage | None = None

    def __repr__(self) -> str:
        return f"Spent(duration={self.duration!r}, cpu_time={self.cpu_time!r})"

    @property
    def duration(self) -> float:
        """Seconds for which the run executed, as in `Usage`."""
        return self._last.attempt_duration - self._begin.attempt_duration

    @property
    def cpu_time(self) -> float | None:
        """Seconds of CPU, None where `Usage` has none."""
        before, after = self._begin.cpu_time, self._last.cpu_time
        return None if before is None or after is None else after - before

    @property
    def _last(self) -> Usage:
        return self._end or self._scope.usage()

    def end(self) -> None:
        """Measure no further. The context manager calls it."""
        self._end = self._scope.usage()


class Measurement:
    """What `usage.measure()` returns: a context manager, also an asynchronous one."""

    def __init__(self, scope: RunScope) -> None:
        self._scope = scope
        self._spent: Spent | None = None

    def __enter__(self) -> Spent:
        self._spent = Spent(self._scope)
        return self._spent

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._spent is not None:
            self._spent.end()

    async def __aenter__(self) -> Spent:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


class Measuring:
    """The usage of the present run. No call does I/O: they are the same in `def` tasks."""

    label = "usage"

    def current(self) -> Usage:
        """Return what the present run has taken so far. Raises `OutsideRunError` outside of runs.

        Example::

            if usage.current().attempt_duration > 600:
                return partial_result

        Not the same from one replay to the next: what durable operations depend on belongs in a `step`.
        """
        return run_scope.require("usage.current").usage()

    def measure(self) -> Measurement:
        """Measure a block of code of the present run. Raises `OutsideRunError` outside of runs.

        Example::

            with usage.measure() as spent:
                convert(video)
            logger.info("converted", seconds=spent.duration, cpu=spent.cpu_time)
        """
        return Measurement(run_scope.require("usage.measure"))


usage = Measuring()
