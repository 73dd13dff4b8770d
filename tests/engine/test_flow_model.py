"""Random programs against the model: no limit is exceeded, no slot is kept, and nothing waits that may start."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from detent.protocol.children import ChildTriggered
from detent.protocol.flow import (
    LimitDeclaration,
    LimitKind,
    LimitRef,
    Override,
    OverrideKey,
    Pause,
    Rate,
    Reset,
    Resume,
)
from detent.protocol.ids import SessionId
from detent.protocol.leases import Lease
from detent.protocol.triggering import Triggered
from tests.database import Clock
from tests.engine.flow_model import PERIOD, Limit, Model, Run, State, first_out_of_order
from tests.engine.invariants import broken_rules
from tests.engine.stage import Stage, Worker, holder, limit, queue, request, task

SEEDS = range(int(os.environ.get("DETENT_TEST_SEEDS", "3")))
STEPS = 100
TASKS = ("a", "b", "c")
QUEUES = ("task/a", "task/b", "task/c", "shared")
NAMED = ("db", "api")
MINUTE = 60


@dataclass(slots=True)
class Program:
    stage: Stage
    clock: Clock
    random: random.Random
    model: Model = field(default_factory=lambda: Model({}, {}))
    workers: dict[SessionId, Worker] = field(default_factory=dict)
    versions: int = 0
    turn: int = 0

    # ---- one step

    async def begin(self) -> None:
        for _ in range(2):
            await self.deploy()

    async def step(self) -> str:
        event = self.random.choice(EVENTS)
        await event(self)
        return event.__name__

    async def check(self) -> None:
        assert await broken_rules(self.stage.connection) == {}

    def some(self, *states: State, most: int = 3) -> list[Run]:
        found = self.model.some(*states)
        return self.random.sample(found, min(len(found), self.random.randint(1, most)))

    def bound(self) -> int | None:
        return self.random.choice([None, 0, 1, 2, 4])

    def next_turn(self) -> int:
        self.turn += 1
        return self.turn

    # ---- callers

    async def trigger(self) -> None:
        for _ in range(self.random.randint(1, 6)):
            task_id, key = self.random.choice(TASKS), self.random.choice([None, "x", "y"])
            name = self.random.choice([None, None, "shared"])
            names = self.random.choice([None, None, (), ("db",), ("api", "db")])
            priority = self.random.choice([0, 0, 0, 100_000])
            wanted = request(task_id, queue=name, concurrency_key=key, limits=names, priority=float(priority))
            (answer,) = await self.stage.engine.trigger([wanted])
            assert isinstance(answer, Triggered)
            place = (-priority, self.model.now, self.next_turn())
            self.model.runs.append(Run(answer.run_id, task_id, name or f"task/{task_id}", key, names, place))

    async def cancel(self) -> None:
        for run in self.some(State.QUEUED, State.HELD, State.WAITING, State.RETRYING, most=2):
            if run.state not in (State.OVER, State.ENDING):
                assert await self.stage.engine.cancel_runs([run.run_id], "stop") == [True]
                self.model.cancel(run)

    # ---- workers

    async def lease(self) -> None:
        await self._lease({"async": self.random.randint(1, 4)})

    async def lease_all(self) -> None:
        await self._lease({"async": 1000})

    async def _lease(self, room: dict[str, int]) -> None:
        model, (session, worker) = self.model, self.random.choice(list(self.workers.items()))
        await self.stage.query("update detent.ready set resident_until = clock_timestamp() - interval '1 s'")
        await self.stage.query("update detent.sessions set beat_at = clock_timestamp() where ended_at is null")
        by_id = {run.run_id: run for run in model.some(State.QUEUED)}
        lanes = {run: run.lane for run in model.runs}
        leases = await worker.lease(**room)
        taken = [by_id[lease.run_id] for lease in leases]
        over_before = set(model.excess())
        for run, lease in zip(taken, leases, strict=True):
            assert model.may_take(session, run), "it is another version's"
            model.lease(session, run, lease)
        now_over = [
            gate for gate in model.excess() if gate not in over_before or any(gate in run.slots for run in taken)
        ]
        assert now_over == []
        assert first_out_of_order(taken, model.some(State.QUEUED), lanes) is None
        if len(leases) < room["async"]:
            assert [run for run in model.runs if model.must_take(session, run)] == []

    def held(self) -> list[tuple[Run, Lease, Worker]]:
        return [
            (run, run.lease, self.workers[run.session])
            for run in self.some(State.HELD)
            if run.lease is not None and run.session is not None
        ]

    async def succeed(self) -> None:
        for run, lease, worker in self.held():
            await worker.succeed(lease)
            self.model.leave(run, State.OVER)

    async def retry(self) -> None:
        for run, lease, worker in self.held():
            await worker.fail(lease, retry_in=timedelta(seconds=MINUTE))
            self.model.retry(run, MINUTE, self.next_turn())

    async def time_out(self) -> None:
        for run, lease, worker in self.held()[:1]:
            await worker.time_out(lease)
            self.model.leave(run, State.ENDING)

    async def hand_back(self) -> None:
        for run, lease, worker in self.held():
            await worker.hand_back(lease)
            self.model.leave(run, State.QUEUED)
            run.session = None

    async def sleep(self) -> None:
        for run, lease, worker in self.held():
            await worker.sleep(lease, str(self.next_turn()), seconds=MINUTE)
            self.model.leave(run, State.WAITING)
            run.due = self.model.now + MINUTE

    async def call(self) -> None:
        for parent, lease, worker in self.held()[:1]:
            task_id, key = self.random.choice(TASKS), self.random.choice([None, "x"])
            answer = await worker.call(lease, str(self.next_turn()), task_id, concurrency_key=key)
            assert isinstance(answer, ChildTriggered)
            run_id, line = answer.triggered.run_id, f"task/{task_id}"
            child = Run(
                run_id, task_id, line, key, None, parent.place, version=parent.version, is_child=True, parent=parent
            )
            self.model.runs.append(child)
            self.model.leave(parent, State.WAITING)

    async def end_code(self) -> None:
        for run in self.some(State.ENDING):
            if run.lease is not None:
                await self.stage.engine.end_cancelled([holder(run.lease)])
                self.model.leave(run, State.OVER)

    async def crash(self) -> None:
        session, worker = self.random.choice(list(self.workers.items()))
        del self.workers[session]
        await worker.end()
        self.model.end_session(session)
        self._opened(await self.stage.session(worker.version))

    def _opened(self, worker: Worker) -> None:
        self.workers[worker.session_id] = worker
        self.model.sessions[worker.session_id] = worker.version

    # ---- limits

    async def deploy(self) -> None:
        """A new version, with other limits; the oldest worker goes."""
        self.versions += 1
        held = {name: tuple(self.random.sample(NAMED, self.random.randint(0, 2))) for name in TASKS}
        for name in NAMED:
            self._declare(name, total=self.bound(), per_key=self.bound(), starts=self.random.choice([None, None, 6]))
        self._declare("queue shared", per_key=self.bound())
        tasks = [task(name, limits=held[name], max_attempts=200) for name in TASKS]
        limits = [self._declaration(name) for name in NAMED] + [
            queue("shared", self.model.limits["queue shared"].per_key)
        ]
        worker = await self.stage.worker(*tasks, limits=limits, version=f"v{self.versions}")
        self.model.held_by_task = held
        self.model.limits_change()
        self._opened(worker)
        if len(self.workers) > 3:
            session = next(iter(self.workers))
            await self.workers.pop(session).end()
            self.model.end_session(session)

    def _declare(
        self, name: str, total: int | None = None, per_key: int | None = None, starts: int | None = None
    ) -> None:
        known = self.model.limits.setdefault(name, Limit())
        known.total, known.per_key, known.starts = total, per_key, starts

    def _declaration(self, name: str) -> LimitDeclaration:
        known = self.model.limits[name]
        rate = Rate(starts=known.starts, period=float(PERIOD)) if known.starts is not None else None
        return limit(name, total=known.total, per_key=known.per_key, rate=rate)

    def _pick(self) -> tuple[LimitRef, Limit]:
        name = self.random.choice(["", "queue shared", "queue task/a", *NAMED])
        known = self.model.limits.setdefault(name, Limit())
        if name == "":
            return LimitRef(kind=LimitKind.ENVIRONMENT), known
        kind = LimitKind.QUEUE if name.startswith("queue ") else LimitKind.LIMIT
        return LimitRef(kind=kind, name=name.removeprefix("queue ")), known

    async def pause_or_resume(self) -> None:
        paused = [name for name, known in self.model.limits.items() if known.is_paused]
        ref, known = self._pick()
        if paused and not known.is_paused:
            return
        known.is_paused = not known.is_paused
        await self.stage.change(Pause(ref=ref) if known.is_paused else Resume(ref=ref))
        self.model.limits_change()

    async def override(self) -> None:
        ref, known = self._pick()
        known.total_override = self.random.choice([1, 2, 3, 5])
        await self.stage.change(Override(ref=ref, total=known.total_override))
        self.model.limits_change()

    async def reset(self) -> None:
        ref, known = self._pick()
        if known.total_override is not None:
            known.total_override = None
            await self.stage.change(Reset(ref=ref))
            self.model.limits_change()

    async def override_key(self) -> None:
        ref, known = self._pick()
        if known.per_key is not None:
            allowed = self.random.choice([0, 1, 3])
            known.of_key["x"] = (allowed, self.model.now + 3 * MINUTE)
            ttl = timedelta(seconds=3 * MINUTE)
            await self.stage.change(OverrideKey(ref=ref, concurrency_key="x", per_key=allowed, ttl=ttl))
            self.model.limits_change()

    # ---- time

    async def time_passes(self) -> None:
        seconds = self.random.choice([MINUTE, MINUTE, 5 * MINUTE])
        self.clock.advance(timedelta(seconds=seconds))
        await self.stage.tick()
        self.model.tick(seconds)


EVENTS: list[Callable[[Program], Awaitable[None]]] = [
    Program.trigger, Program.trigger, Program.trigger, Program.cancel, Program.lease, Program.lease, Program.lease_all,
    Program.lease_all, Program.succeed, Program.succeed, Program.succeed, Program.retry, Program.time_out, Program.hand_back,
    Program.sleep, Program.call, Program.end_code, Program.end_code, Program.crash, Program.deploy, Program.pause_or_resume,
    Program.pause_or_resume, Program.override, Program.reset, Program.override_key, Program.time_passes, Program.time_passes,
]  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_runs_and_limits_do_is_as_the_model_says(stage: Stage, clock: Clock, seed: int) -> None:
    program, past = Program(stage, clock, random.Random(seed)), list[str]()
    await program.begin()
    for _ in range(STEPS):
        try:
            past.append(await program.step())
            await program.check()
        except AssertionError as error:
            error.add_note(f"seed {seed}, after {', '.join(past[-12:])}")
            raise
