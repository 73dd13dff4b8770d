"""One leased run in a runner's memory: from the lease to the end of its code, over any number of waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from detent.errors import RunCancelledError, RunSuspended, StaleRunError
from detent.protocol.attempts import AttemptOutcome
from detent.protocol.execution import Isolation
from detent.protocol.fence import Holder
from detent.protocol.leases import Lease
from detent.protocol.waits import WaitResult
from detent.sdk import blocking
from detent.sdk.context import CancelSignal, MachineContext
from detent.worker.answers import Answers
from detent.worker.confinement import Confinement
from detent.worker.journal import Journal
from detent.worker.meter import Meter
from detent.worker.path import Path
from detent.worker.timers import Timers

if TYPE_CHECKING:
    from detent.worker.telemetry import AttemptSpan


class Phase(Enum):
    EXECUTING = auto()
    """Its slot is taken, its clock runs."""
    WAITING = auto()
    """WAITING in the database: its code stands in waits, it holds no slot."""
    PARKED = auto()
    """Its code has ended while the database still says WAITING: the outcome goes out when it is resumed."""
    ENDED = auto()
    """Its code has ended and the outcome is on its way."""


class Stop(Enum):
    """Why the code of a run is told to end before its time."""

    CANCELLED = auto()
    OVERRUN = auto()
    EVICTED = auto()
    """Its memory is needed, or its process ends: another one goes on, by replay, when what it waits for is there."""
    DROPPED = auto()
    """It goes on elsewhere, or from its top: nothing that this copy does counts any more."""


class Host(Protocol):
    """What an attempt tells its runner."""

    def suspended(self, attempt: Attempt) -> None: ...
    def stands(self, attempt: Attempt) -> None: ...
    def wants_back(self, attempt: Attempt) -> None: ...
    def lost(self, attempt: Attempt) -> None: ...
    def vanished(self, attempt: Attempt) -> None: ...
    def run_errand(self, work: Coroutine[object, object, None]) -> None: ...


class Attempt:
    """A run under a fence. `record` is its place in the note, 0 once its code has ended."""

    __slots__ = (
        "_resumption", "answers", "began", "began_waiting", "blocked", "children", "clock", "collected", "confinement",
        "fence", "holder", "hooking", "host", "is_done", "is_fenced", "is_threaded", "journal", "kind", "last_line", "lease",
        "locals", "machine", "meter", "outcome", "path", "phase", "preparing", "raised", "record", "refusal", "run_id", "signal",
        "span", "standing", "stop_reason", "suspending", "task", "thread", "timer", "timers", "turns", "waited",
    )  # fmt: skip

    def __init__(self, lease: Lease, kind: Isolation, host: Host, clock: Callable[[], float]) -> None:
        self.lease, self.kind, self.host, self.clock = lease, kind, host, clock
        self.run_id, self.fence = lease.run_id, lease.fence
        self.holder = Holder(run_id=lease.run_id, fence=lease.fence)
        self.phase = Phase.EXECUTING
        self.path = Path()
        self.timers = Timers()
        self.begin(Journal(lease.run_id, lease.attempt))
        self.signal = CancelSignal(lease.run_id)
        self.began, self.waited, self.began_waiting = clock(), 0.0, 0.0
        self.machine: MachineContext | None = None
        self.confinement: Confinement | None = None
        """What holds its process to the machine."""
        self.meter = Meter(has_process=kind is Isolation.PROCESS)
        self.record = self.turns = 0
        self.task: asyncio.Task[None] | None = None
        self.children: set[asyncio.Task[object]] = set()
        """Tasks that its code has started and that have not ended."""
        self.blocked = 0
        """Blocking calls in which its threads stand."""
        self.preparing: dict[str, Callable[[WaitResult], Awaitable[None]]] | None = None
        """What is to be fetched for an operation that is done. It takes time, so it comes before the answer gets its turn."""
        self.standing: set[str] = set()
        """Operations that the database waits for with it."""
        self.collected: list[str] = []
        """Operations whose results were collected: the database is told when the run suspends."""
        self.suspending: asyncio.Future[None] | None = None
        self.thread: int | None = None
        self.is_threaded = False
        self.timer: asyncio.TimerHandle | None = None
        self.outcome: AttemptOutcome | None = None
        self.stop_reason: Stop | None = None
        self.refusal: BaseException | None = None
        self.is_fenced = False
        self.is_done = False
        """Its code has ended; only its last lines are not stored yet."""
        self._resumption: asyncio.Future[None] | None = None
        self.last_line = 0
        self.locals: dict[str, object] = {}
        self.raised: BaseException | None = None
        """What its code failed with, for `on_failure`."""
        self.hooking: asyncio.Task[None] | None = None
        """Calls its final hooks."""
        self.span: AttemptSpan | None = None
        """None: nobody is told."""

    def begin(self, journal: Journal) -> None:
        """Start from the top, with what was recorded."""
        self.journal = journal
        self.answers: Answers[object] = Answers(
            journal, asyncio.get_running_loop(), turns=self._count_turns, abandon=self.timers.give_up
        )
        self.timers.is_replaying = lambda: journal.is_replaying
        self.timers.at_rest = self.answers.at_rest

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
    def has_left(self) -> bool:
        """Whether the attempt goes on elsewhere, or from its top: what this copy comes to is not its end."""
        return self.stop_reason in {Stop.EVICTED, Stop.DROPPED}

    @property
    def elapsed(self) -> float:
        """Seconds of this attempt, its waits left out; also those before a wait in which it left another process."""
        now = self.began_waiting if self.phase is Phase.WAITING else self.clock()
        return self.lease.attempt_active + now - self.began - self.waited

    def _count_turns(self) -> int:
        return self.turns

    @property
    def moves(self) -> int:
        """Steps of its code, and timers that ended: between one of these and the step that comes of it, nothing stands still."""
        return self.turns + self.timers.ended

    def check(self) -> None:
        """Raise what every detent call is refused with, once the code has been told to end."""
        if self.refusal is not None:
            raise self.refusal

    # ---- waiting ----

    @property
    def has_one_thing_to_do(self) -> bool:
        """Whether nothing else goes on when the code waits for an operation: it may suspend with it."""
        return (
            not self.timers
            and not self.collected
            and len(self.answers) == 1
            and (self.blocked == 1 if self.is_threaded else not self.blocked)
            and not self.children
        )

    @property
    def is_standing(self) -> bool:
        """Whether all that the code has asked for is waited for by the database, too."""
        return bool(self.standing) and len(self.answers) == len(self.standing) and self.answers.is_resting

    def suspend(self) -> None:
        """The database says WAITING."""
        if self.phase is Phase.EXECUTING:
            self.phase = Phase.WAITING
            self.timers.is_held = True
            self.collected.clear()
            self.began_waiting = self.clock()
            self.host.suspended(self)

    def adopt(self, lease: Lease) -> None:
        """Something it waited for is there: go on under a new fence."""
        self.fence, self.holder = lease.fence, Holder(run_id=self.run_id, fence=lease.fence)
        if self.phase is Phase.WAITING:
            self.waited += self.clock() - self.began_waiting
            self.phase = Phase.EXECUTING
        self.take(lease.results)
        if self._resumption is not None and not self._resumption.done():
            self._resumption.set_result(None)
        self.timers.release()
        if self.standing:
            self.host.stands(self)

    def take(self, results: Sequence[WaitResult]) -> None:
        """Give the code what it waits for."""
        for result in results:
            if self.journal.complete(result):
                continue
            self.standing.discard(result.operation)
            prepare = None if self.preparing is None else self.preparing.get(result.operation)
            if prepare is None:
                self.answers.arrive(result.operation, result)
            else:
                self.host.run_errand(self._prepare(result, prepare))

    async def _prepare(self, result: WaitResult, prepare: Callable[[WaitResult], Awaitable[None]]) -> None:
        try:
            await prepare(result)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the run's to know
            self.answers.arrive(result.operation, error)
        else:
            self.answers.arrive(result.operation, result)

    def collect(self, results: Sequence[WaitResult]) -> None:
        """The same, while it executes; the database tells of them again until the run suspends."""
        known = set(self.collected)
        self.collected += [result.operation for result in results if result.operation not in known]
        self.take(results)

    async def resumption(self) -> None:
        """Return when the run has been resumed."""
        if self._resumption is None or self._resumption.done():
            self._resumption = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._resumption)

    # ---- ending early ----

    def stop(self, reason: Stop, refusal: BaseException) -> None:
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
        self.end_children()

    def evict(self) -> None:
        """End the code where it stands: its waits raise `RunSuspended`, so that it closes what it holds."""
        self.stop(Stop.EVICTED, RunSuspended(self.run_id))
        self.timers.clear()
        self.answers.refuse(RunSuspended(self.run_id))

    def child_ended(self, child: asyncio.Task[object]) -> None:
        self.children.discard(child)
        if self.stop_reason is not None and not child.cancelled():
            child.exception()  # what was made to end has nobody to tell

    def end_children(self) -> None:
        """Cancel what the code has started and not awaited."""
        for child in list(self.children):
            child.cancel()

    def cancel(self, reason: str) -> None:
        # The signal keeps what it is told first: the reason itself, not the sentence of the error.
        self.signal.trip(reason)
        self.stop(Stop.CANCELLED, RunCancelledError(self.run_id, reason))
