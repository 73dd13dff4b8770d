"""What must be of runs that wait, in plain Python: no rows, no locks, one event after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from detent.protocol.ids import RunId, SessionId
from detent.protocol.leases import Lease


class State(Enum):
    """Of a run, by the statuses it may have in the database."""

    READY = ("QUEUED",)
    HELD = ("DEQUEUED", "EXECUTING")
    SUSPENDED = ("WAITING",)
    PAUSED = ("QUEUED", "before a retry")


class Answer(Enum):
    STALE = "stale"
    DONE = "done"
    PENDING = "pending"
    SUSPENDED = "suspended"


@dataclass(slots=True, eq=False)
class Goal:
    """What is waited for: a moment, a token, a run, or a batch of `members`."""

    id: str
    due: float | None = None
    members: tuple[Goal, ...] = ()
    owner: RunId | None = None
    """The parent of a run, which it is cancelled with."""
    lease: Lease | None = None
    is_done: bool = False


@dataclass(slots=True, eq=False)
class Waiter:
    run_id: RunId
    state: State = State.READY
    session: SessionId | None = None
    fence: int | None = None
    attempt: int = 1
    head_start: SessionId | None = None
    """Who has it in memory and may lease it first, for a moment."""
    is_for_anyone: bool = False
    edges: dict[str, Goal] = field(default_factory=dict)
    collected: set[str] = field(default_factory=set)
    timer: float | None = None
    leases: list[Lease] = field(default_factory=list)

    def done(self) -> set[str]:
        return {operation for operation, goal in self.edges.items() if goal.is_done}


@dataclass(frozen=True, slots=True)
class Ask:
    """A run's code waits for a goal."""

    waiter: Waiter
    fence: int
    operation: str
    goal: Goal
    suspends: bool


@dataclass(slots=True)
class Model:
    waiters: list[Waiter] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    now: float = 0.0
    """Minutes."""
    told: set[SessionId] = field(default_factory=set)
    """Sessions that hear that something came for a run of theirs."""

    def holds(self, waiter: Waiter, fence: int) -> bool:
        return waiter in self.waiters and waiter.fence == fence

    # ---- asked by code

    def ask(self, asks: Sequence[Ask]) -> list[Answer]:
        held = [ask for ask in asks if self.holds(ask.waiter, ask.fence)]
        for ask in held:
            if not ask.goal.is_done:
                ask.waiter.edges.setdefault(ask.operation, ask.goal)
        for ask in held:
            if ask.suspends and ask.operation in ask.waiter.edges:
                _suspend(ask.waiter)
        return [self._answer(ask) for ask in asks]

    def _answer(self, ask: Ask) -> Answer:
        if not self.holds(ask.waiter, ask.fence):
            return Answer.STALE
        if ask.operation not in ask.waiter.edges:
            return Answer.DONE
        return Answer.SUSPENDED if ask.waiter.state is State.SUSPENDED else Answer.PENDING

    def suspend(self, waiter: Waiter, fence: int, minutes: float | None, delivered: Iterable[str]) -> Answer:
        if not self.holds(waiter, fence):
            return Answer.STALE
        for operation in delivered:
            waiter.edges.pop(operation, None)
        _suspend(waiter)
        if waiter.state is not State.SUSPENDED:
            return Answer.PENDING
        if minutes is not None:
            waiter.timer = self.now + minutes
        waiter.collected.clear()
        return Answer.SUSPENDED

    def collect(self, waiter: Waiter, fence: int) -> set[str]:
        if not self.holds(waiter, fence) or waiter.state is not State.HELD:
            return set()
        waiter.collected |= waiter.done()
        return waiter.done()

    # ---- what comes

    def complete(self, goals: Iterable[Goal]) -> None:
        new = {goal for goal in goals if not goal.is_done}
        for goal in new:
            goal.is_done = True
        for goal in self.goals:
            if goal.members and not goal.is_done and all(member.is_done for member in goal.members):
                goal.is_done = True
                new.add(goal)
        for waiter in self.waiters:
            if new & set(waiter.edges.values()):
                self._wake(waiter)

    def tick(self, minutes: float) -> None:
        self.now += minutes
        for waiter in self.waiters:
            if waiter.timer is not None and waiter.timer <= self.now:
                self._wake(waiter)
        self.complete([goal for goal in self.goals if goal.due is not None and goal.due <= self.now])

    def _wake(self, waiter: Waiter) -> None:
        if waiter.session is not None and waiter.state is not State.READY:
            self.told.add(waiter.session)
        if waiter.state in (State.SUSPENDED, State.PAUSED):
            waiter.state, waiter.timer, waiter.head_start = State.READY, None, waiter.session
            waiter.is_for_anyone = False

    # ---- leases

    def lease(self, waiter: Waiter, session: SessionId, lease: Lease) -> set[str]:
        """Return the operations whose results come with a lease."""
        assert waiter.state is State.READY
        delivered = waiter.done()
        for operation in delivered:
            del waiter.edges[operation]
        waiter.state, waiter.session, waiter.fence, waiter.head_start = State.HELD, session, lease.fence, None
        waiter.leases.append(lease)
        waiter.collected.clear()
        return delivered

    def hand_back(self, waiter: Waiter, fence: int) -> None:
        if not self.holds(waiter, fence):
            return
        if waiter.state is State.HELD:
            waiter.state = State.READY
        waiter.session = waiter.fence = waiter.head_start = None

    def end_session(self, session: SessionId) -> None:
        for waiter in self.waiters:
            if waiter.session == session and waiter.fence is not None:
                self.hand_back(waiter, waiter.fence)

    def retry(self, waiter: Waiter, fence: int, minutes: float) -> bool:
        if not self.holds(waiter, fence) or waiter.state is not State.HELD:
            return False
        waiter.state, waiter.session, waiter.fence, waiter.timer = State.PAUSED, None, None, self.now + minutes
        waiter.attempt += 1
        waiter.edges.clear()
        return True

    def finish(self, waiter: Waiter, fence: int) -> bool:
        if not self.holds(waiter, fence) or waiter.state is not State.HELD:
            return False
        self.waiters.remove(waiter)
        return True

    def cancel(self, waiter: Waiter) -> None:
        self.waiters.remove(waiter)
        self.complete([goal for goal in self.goals if goal.owner == waiter.run_id])


def _suspend(waiter: Waiter) -> None:
    if waiter.state in (State.HELD, State.READY) and waiter.edges and not waiter.done():
        waiter.state, waiter.head_start = State.SUSPENDED, None
