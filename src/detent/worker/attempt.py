"""One leased run in a runner's memory: from the lease to the end of its code, over any number of waits."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from detent.errors import DetentError, RunCancelledError, StaleRunError
from detent.protocol.models import AttemptOutcome, Holder, Isolation, Lease, WaitResult
from detent.sdk import blocking
from detent.sdk.context import CancelSignal
from detent.worker.journal import Journal


class Phase(Enum):
    EXECUTING = auto()
    """Its slot is taken, its clock runs."""
    WAITING = auto()
    """WAITING in the database: its coroutine is suspended, it holds no slot."""
    PARKED = auto()
    """Its code has ended while the database still waits for something it gave up: the outcome goes out when it is resumed."""
    ENDED = auto()
    """Its code has ended and the outcome is on its way."""


class Stop(Enum):
    """Why the code of a run is told to end before its time."""

    CANCELLED = auto()
    OVERRUN = auto()
    DROPPED = auto()
    """It goes on elsewhere, or from its top: nothing that this copy does counts any more."""


class Host(Protocol):
    """What an attempt tells its runner."""

    def suspended(self, attempt: Attempt) -> None: ...
    def lost(self, attempt: Attempt) -> None: ...
    def vanished(self, attempt: Attempt) -> None: ...


class Attempt:
    """A run under a fence. `record` is its place in the note, 0 once its code has ended."""

    __slots__ = (
        "_lines", "_resumption", "_waiters", "began", "began_waiting", "clock", "fence", "holder", "host", "is_done", "is_fenced",
        "is_threaded", "journal", "kind", "last_line", "lease", "outcome", "phase", "record", "refusal", "run_id", "signal",
        "stop_reason", "task", "thread", "timer", "waited",
    )  # fmt: skip

    def __init__(self, lease: Lease, kind: Isolation, host: Host, clock: Callable[[], float]) -> None:
        self.lease, self.kind, self.host, self.clock = lease, kind, host, clock
        self.run_id, self.fence = lease.run_id, lease.fence
        self.holder = Holder(run_id=lease.run_id, fence=lease.fence)
        self.phase = Phase.EXECUTING
        self.journal = Journal(lease.run_id)
        self.signal = CancelSignal(lease.run_id)
        self.began, self.waited, self.began_waiting = clock(), 0.0, 0.0
        self.record = 0
        self.task: asyncio.Task[None] | None = None
        self.thread: int | None = None
        self.is_threaded = False
        self.timer: asyncio.TimerHandle | None = None
        self.outcome: AttemptOutcome | None = None
        self.stop_reason: Stop | None = None
        self.refusal: DetentError | None = None
        self.is_fenced = False
        self.is_done = False
        """Its code has ended; only its last lines are not stored yet."""
        self._waiters: dict[str, asyncio.Future[WaitResult]] | None = None
        self._resumption: asyncio.Future[None] | None = None
        self._lines = itertools.count()
        self.last_line = 0

    @property
    def attempt(self) -> int:
        return self.lease.attempt

    @property
    def task_id(self) -> str:
        return self.lease.task_id

    @property
    def is_dropped(self) -> bool:
        return self.stop_reason is Stop.DROPPED

    @property
    def elapsed(self) -> float:
        """Seconds of this attempt in this process, its waits left out."""
        now = self.began_waiting if self.phase is Phase.WAITING else self.clock()
        return now - self.began - self.waited

    def next_line(self) -> int:
        return next(self._lines)

    def check(self) -> None:
        """Raise what every detent call is refused with, once the code has been told to end."""
        if self.refusal is not None:
            raise self.refusal

    # ---- waiting ----

    def expect(self, operation: str) -> asyncio.Future[WaitResult]:
        """Return the future that the lease which resumes the run will fulfil. Made before the wait is asked for."""
        waiter: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = {}
        self._waiters[operation] = waiter
        return waiter

    def forget(self, operation: str) -> None:
        if self._waiters is not None:
            self._waiters.pop(operation, None)

    def suspend(self) -> None:
        """The database says WAITING."""
        if self.phase is Phase.EXECUTING:
            self.phase = Phase.WAITING
            self.began_waiting = self.clock()
            self.host.suspended(self)

    def adopt(self, lease: Lease) -> None:
        """What it waited for is there: go on under a new fence."""
        self.fence, self.holder = lease.fence, Holder(run_id=self.run_id, fence=lease.fence)
        if self.phase is Phase.WAITING:
            self.waited += self.clock() - self.began_waiting
            self.phase = Phase.EXECUTING
        for result in lease.results:
            waiter = None if self._waiters is None else self._waiters.get(result.operation)
            if waiter is not None and not waiter.done():
                waiter.set_result(result)
        if self._resumption is not None and not self._resumption.done():
            self._resumption.set_result(None)

    async def resumption(self) -> None:
        """Return when the run has been resumed."""
        if self._resumption is None or self._resumption.done():
            self._resumption = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._resumption)

    # ---- ending early ----

    def stop(self, reason: Stop, refusal: DetentError) -> None:
        """Refuse further detent calls and trip the signal; the code may still end by itself."""
        self.stop_reason, self.refusal = reason, refusal
        self.signal.trip(str(refusal))

    def interrupt(self) -> None:
        """Make the code end: a coroutine is cancelled, a thread finds that the call it stands in fails."""
        if self.refusal is None:
            return
        if self.is_threaded:
            blocking.interrupt(self.run_id)
        elif self.task is not None:
            self.task.cancel()
            # Cancelled before its first step, a coroutine never runs at all: then nobody else would notice its end.
            self.task.add_done_callback(lambda _: self.host.vanished(self))

    def drop(self) -> None:
        self.stop(Stop.DROPPED, StaleRunError(self.run_id))
        self.interrupt()

    def cancel(self, reason: str) -> None:
        self.stop(Stop.CANCELLED, RunCancelledError(self.run_id, reason))
