"""What flow control must do, in plain Python: a list of runs, a table of limits, and a count for every question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from detent.protocol.ids import RunId, SessionId
from detent.protocol.leases import Lease

PERIOD = 600
"""Seconds, of rates. Time goes by in steps of a minute, and a test takes less than one of real time."""


class State(Enum):
    QUEUED = auto()
    HELD = auto()
    ENDING = auto()
    """Over, but its code goes on."""
    WAITING = auto()
    RETRYING = auto()
    OVER = auto()


@dataclass(frozen=True, slots=True)
class Gate:
    """One bound of a limit; of `key` for those that count by key."""

    limit: str
    scope: str
    key: str | None = None


@dataclass(slots=True)
class Limit:
    total: int | None = None
    per_key: int | None = None
    starts: int | None = None
    """In any window of PERIOD."""
    total_override: int | None = None
    is_paused: bool = False
    of_key: dict[str, tuple[int, int]] = field(default_factory=dict)
    """What a key is allowed instead, and until when."""

    @property
    def present_total(self) -> int | None:
        if self.is_paused:
            return 0
        return self.total if self.total_override is None else self.total_override


@dataclass(slots=True, eq=False)
class Run:
    run_id: RunId
    task: str
    queue: str
    key: str | None
    names: tuple[str, ...] | None
    """Of limits, given at the trigger."""
    place: tuple[int, int, int]
    """In its line: negated priority, time, turn."""
    state: State = State.QUEUED
    version: str | None = None
    """Which has begun it, or its parent."""
    has_started: bool = False
    """Its present attempt has."""
    is_child: bool = False
    due: int | None = None
    session: SessionId | None = None
    lease: Lease | None = None
    slots: set[Gate] = field(default_factory=set)
    parent: Run | None = None

    @property
    def lane(self) -> tuple[object, ...]:
        return self.task, self.queue, self.key, self.names, self.version, self.has_started


@dataclass(slots=True)
class Model:
    limits: dict[str, Limit]
    held_by_task: dict[str, tuple[str, ...]]
    """The limits of tasks in the newest version."""
    runs: list[Run] = field(default_factory=list)
    sessions: dict[SessionId, str] = field(default_factory=dict)
    """The version of each that is open."""
    started: list[tuple[Gate, int]] = field(default_factory=list)
    now: int = 0

    def some(self, *states: State) -> list[Run]:
        return [run for run in self.runs if run.state in states]

    # ---- what bounds a run

    def gates_of(self, run: Run) -> Iterator[Gate]:
        named = run.names if run.names is not None else self.held_by_task[run.task]
        for name in {"", f"queue {run.queue}", *named}:
            limit = self.limits.get(name, Limit())
            if limit.present_total is not None:
                yield Gate(name, "total")
            if limit.per_key is not None:
                yield Gate(name, "key", run.key)
            if limit.starts is not None:
                yield Gate(name, "rate")

    def allowed(self, gate: Gate) -> int:
        limit = self.limits[gate.limit]
        if gate.scope == "total":
            return limit.present_total if limit.present_total is not None else 10**9
        if gate.scope == "rate":
            return limit.starts if limit.starts is not None else 10**9
        allowed, until = limit.of_key.get(gate.key or "", (0, 0))
        if until > self.now:
            return allowed
        return limit.per_key if limit.per_key is not None else 10**9

    def count(self, gate: Gate, window: int = PERIOD) -> int:
        """Slots that are held; of a rate, the starts of the last *window* seconds."""
        if gate.scope == "rate":
            return sum(each == gate and self.now - at < window for each, at in self.started)
        return sum(gate in run.slots for run in self.runs)

    def excess(self) -> list[Gate]:
        """Bounds of which more is used than they allow."""
        used = {gate for run in self.runs for gate in run.slots} | {gate for gate, _ in self.started}
        return [gate for gate in used if self.count(gate) > self.allowed(gate)]

    # ---- who may start

    def may_take(self, session: SessionId, run: Run) -> bool:
        """Whether it is for this version: it has begun the run, or nobody has who lives."""
        version = self.sessions[session]
        return run.is_child or run.version in (None, version) or run.version not in self.sessions.values()

    def must_take(self, session: SessionId, run: Run) -> bool:
        """Whether nothing keeps it from starting. A start counts a little longer than the window of its rate."""
        version = self.sessions[session]
        if run.state is not State.QUEUED or not (
            run.version in (None, version) or run.version not in self.sessions.values()
        ):
            return False
        for gate in self.gates_of(run):
            if gate.scope == "rate" and run.has_started:
                continue
            if self.count(gate, PERIOD + 120) >= self.allowed(gate):
                return False
        return True

    # ---- what happens

    def lease(self, session: SessionId, run: Run, lease: Lease) -> None:
        run.slots = {gate for gate in self.gates_of(run) if gate.scope != "rate"}
        if not run.has_started:
            self.started += [(gate, self.now) for gate in self.gates_of(run) if gate.scope == "rate"]
        run.state, run.session, run.lease = State.HELD, session, lease
        run.version, run.has_started, run.is_child = self.sessions[session], True, False

    def limits_change(self) -> None:
        """What executes counts for what is set before it."""
        for run in self.some(State.HELD):
            run.slots |= {gate for gate in self.gates_of(run) if gate.scope != "rate"}

    def leave(self, run: Run, state: State) -> None:
        """Execute no longer."""
        run.state = state
        if state is not State.ENDING:
            run.slots = set()
        if state in (State.OVER, State.ENDING) and run.parent is not None and run.parent.state is State.WAITING:
            run.parent.state, run.parent.due = State.QUEUED, None

    def retry(self, run: Run, after: int, turn: int) -> None:
        self.leave(run, State.RETRYING)
        run.due, run.place, run.has_started, run.session = self.now + after, (0, self.now + after, turn), False, None

    def cancel(self, run: Run) -> None:
        """With its children."""
        for child in self.runs:
            if child.parent is run and child.state not in (State.OVER, State.ENDING):
                child.parent = None
                self.cancel(child)
        self.leave(run, State.ENDING if run.state is State.HELD else State.OVER)

    def end_session(self, session: SessionId) -> None:
        del self.sessions[session]
        for run in self.runs:
            if run.session == session and run.state is State.HELD:
                self.leave(run, State.QUEUED)
            elif run.session == session and run.state is State.ENDING:
                self.leave(run, State.OVER)
            if run.session == session:
                run.session = None

    def tick(self, seconds: int) -> None:
        self.now += seconds
        for run in self.some(State.WAITING, State.RETRYING):
            if run.due is not None and run.due <= self.now:
                run.state, run.due = State.QUEUED, None


def first_out_of_order(
    taken: Iterable[Run], left: Iterable[Run], lanes: dict[Run, tuple[object, ...]]
) -> tuple[Run, Run] | None:
    """A run that was taken although one with the same constraints stood before it, and that one."""
    rest = list(left)
    for run in taken:
        for other in rest:
            if lanes[run] == other.lane and other.place < run.place:
                return run, other
    return None
