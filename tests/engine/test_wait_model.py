"""Random waits against the model: every answer, every wake-up and every row is what the model says, one event at a time."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from detent.engine.backend import EngineBackend, connect
from detent.engine.maintenance import Maintenance
from detent.protocol import ids
from detent.protocol.attempts import Completed, Failed, Succeeded
from detent.protocol.batches import BatchChunk, ChunkTaken
from detent.protocol.children import ChildRequest, ChildTriggered
from detent.protocol.fence import Stale
from detent.protocol.idempotency import Idempotency
from detent.protocol.ids import RunId, SessionId
from detent.protocol.journal import StepRecord
from detent.protocol.leases import HandBack, Lease, LeaseRequest
from detent.protocol.operations import Origin
from detent.protocol.sessions import SessionEnd
from detent.protocol.tokens import TokenCompletion, TokenCreated, TokenRequest
from detent.protocol.waits import Pending, Suspended, Suspension, TimeWait, TokenWait
from detent.protocol.wake_ups import Wake
from tests.database import Clock
from tests.engine.invariants import broken_rules
from tests.engine.stage import BOOM, PLENTY, Stage, Worker, chunk, holder, request, task
from tests.engine.wait_model import Answer, Ask, Goal, Model, State, Waiter

SEEDS = range(int(os.environ.get("DETENT_TEST_SEEDS", "6")))
STEPS = 120
WAITERS = 4
KEYS = 3
Message = TimeWait | TokenWait | ChildRequest | BatchChunk


@dataclass(slots=True)
class Life:
    """Some runs that wait, two runners that hold them, a third one for what they wait for, and two connections."""

    stage: Stage
    clock: Clock
    engines: Sequence[EngineBackend]
    random: random.Random
    model: Model = field(default_factory=Model)
    runners: list[Worker] = field(default_factory=list)
    children: list[Worker] = field(default_factory=list)
    asked: list[tuple[Ask, Message, int]] = field(default_factory=list)
    keyed: dict[int, Goal] = field(default_factory=dict)
    heard: set[SessionId] = field(default_factory=set)
    operations: int = 0

    # ---- one step

    async def begin(self) -> None:
        self.runners = [await self.stage.worker(task("work", max_attempts=200)) for _ in range(2)]
        self.children = [await self.stage.worker("item")]
        for engine in self.engines:
            engine.hear(self._hear)

    def _hear(self, wake: Wake) -> bool:
        self.heard |= set(wake.resumed)
        return True

    async def step(self) -> str:
        while len(self.model.waiters) < WAITERS:
            self.model.waiters.append(Waiter(await self.stage.trigger("work")))
        self.heard.clear()
        self.model.told.clear()
        event = self.random.choice(EVENTS)
        await event(self)
        return event.__name__

    async def check(self) -> None:
        assert await broken_rules(self.stage.connection) == {}
        assert self.heard == self.model.told
        rows = await self.stage.query(
            "select id, status::text, session_id, fence, due_at is not null from detent.runs where task_id = 'work'"
        )
        assert {row[0]: row[1:] for row in rows} == {
            ids.decode("run", waiter.run_id): _row(waiter, row[1])
            for waiter in self.model.waiters
            for row in rows
            if row[0] == ids.decode("run", waiter.run_id)
        }
        assert len(rows) == len(self.model.waiters)
        edges = await self.stage.query("select run_id, operation, is_done from detent.waits")
        assert {(run_id, operation): is_done for run_id, operation, is_done in edges} == {
            (ids.decode("run", waiter.run_id), operation): goal.is_done
            for waiter in self.model.waiters
            for operation, goal in waiter.edges.items()
        }

    def engine(self) -> EngineBackend:
        return self.random.choice(self.engines)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def some(self, most: int) -> list[tuple[Waiter, Lease]]:
        """Runs as their holders see them; one in five thinks that it still is what it was."""
        known = [waiter for waiter in self.model.waiters if waiter.leases]
        chosen = self.random.sample(known, min(len(known), self.random.randint(1, most)))
        return [(w, self.random.choice(w.leases) if self.chance(0.2) else w.leases[-1]) for w in chosen]

    def origin(self, lease: Lease) -> Origin:
        self.operations += 1
        operation = f"{self.operations}"
        return Origin(holder=holder(lease), operation=operation, wait=True, suspends=self.chance(0.4))

    # ---- waits

    async def wait_for_moments(self) -> None:
        messages: list[tuple[Waiter, Goal, Message]] = []
        for waiter, lease in self.some(3):
            minutes = self.random.choice([0.0, 1.5, 3.5, 9.5])
            wait = TimeWait(
                origin=self.origin(lease), until=timedelta(minutes=minutes), waitpoint_id=ids.new_waitpoint_id()
            )
            goal = Goal(wait.waitpoint_id, due=self.model.now + minutes, is_done=not minutes)
            messages.append((waiter, goal, wait))
        await self.send(messages)

    async def wait_for_tokens(self) -> None:
        tokens = [goal for goal in self.model.goals if goal.id.startswith("waitpoint") and goal.due is None][-6:]
        if tokens:
            waits = [(waiter, self.random.choice(tokens), lease) for waiter, lease in self.some(3)]
            await self.send(
                [
                    (waiter, goal, TokenWait(origin=self.origin(lease), waitpoint_id=ids.WaitpointId(goal.id)))
                    for waiter, goal, lease in waits
                ]
            )

    async def call(self) -> None:
        messages: list[tuple[Waiter, Goal, Message]] = []
        for waiter, lease in self.some(3):
            wanted = request("item")
            goal = Goal(wanted.run_id, owner=waiter.run_id)
            messages.append((waiter, goal, ChildRequest(request=wanted, origin=self.origin(lease))))
        await self.send(messages)

    async def call_by_key(self) -> None:
        """Several parents on one child, which may be over."""
        for waiter, lease in self.some(1):
            n = self.random.randrange(KEYS)
            wanted = request("item", idempotency=Idempotency(key=f"{n:064}", user_key="k", scope="global"))
            goal = self.keyed.get(n) or Goal(wanted.run_id, owner=waiter.run_id)
            if self.model.holds(waiter, lease.fence):
                self.keyed[n] = goal
            await self.send([(waiter, goal, ChildRequest(request=wanted, origin=self.origin(lease)))])

    async def batch(self) -> None:
        for waiter, lease in self.some(1):
            batch_id, count = ids.new_batch_id(), self.random.randint(0, 3)
            whole = chunk(batch_id, range(count), total=count, origin=self.origin(lease), task_id="item")
            members = tuple(Goal(item.run_id, owner=waiter.run_id) for _, item in whole.items)
            if self.model.holds(waiter, lease.fence):
                self.model.goals += members
            await self.send([(waiter, Goal(batch_id, members=members, is_done=not count), whole)])

    async def ask_again(self) -> None:
        """As after a lost reply, or as a replay does under another fence."""
        asked = [(ask, message) for ask, message, attempt in self.asked[-20:] if attempt == ask.waiter.attempt]
        for ask, message in self.random.sample(asked, min(1, len(asked))):
            place = _origin(message)
            if self.chance(0.5):
                place = Origin(
                    holder=holder(ask.waiter.leases[-1]), operation=place.operation, wait=True, suspends=place.suspends
                )
            await self.send([(ask.waiter, ask.goal, _at(message, place))])

    async def send(self, wanted: Sequence[tuple[Waiter, Goal, Message]]) -> None:
        asks = [
            Ask(waiter, _origin(message).holder.fence, _origin(message).operation, goal, _origin(message).suspends)
            for waiter, goal, message in wanted
        ]
        for ask, (_, _, message) in zip(asks, wanted, strict=True):
            if self.model.holds(ask.waiter, ask.fence):
                self.asked.append((ask, message, ask.waiter.attempt))
                if ask.goal not in self.model.goals:
                    self.model.goals.append(ask.goal)
        answers = await _sent(self.engine(), [message for _, _, message in wanted])
        assert answers == self.model.ask(asks)

    async def suspend(self) -> None:
        await self.stand_still(
            [
                (w, lease, self.random.choice([None, 2.5, 0.0]), tuple(w.collected) if self.chance(0.8) else ())
                for w, lease in self.some(2)
            ]
        )

    async def nap(self) -> None:
        """A timer wakes a run, which stands still again before anybody has leased it."""
        for waiter, lease in self.some(1):
            for _ in range(2):
                await self.stand_still([(waiter, lease, 0.0, tuple(waiter.collected))])
                await self.time_passes()

    async def stand_still(self, chosen: Sequence[tuple[Waiter, Lease, float | None, tuple[str, ...]]]) -> None:
        answers = await self.engine().suspend(
            [
                Suspension(holder=holder(lease), until=_minutes(minutes), delivered=delivered)
                for _, lease, minutes, delivered in chosen
            ]
        )
        assert [_answer(answer) for answer in answers] == [
            self.model.suspend(waiter, lease.fence, minutes, delivered) for waiter, lease, minutes, delivered in chosen
        ]

    async def collect(self) -> None:
        chosen = self.some(4)
        found = await self.engine().collect([holder(lease) for _, lease in chosen])
        wanted = {holder(lease): self.model.collect(waiter, lease.fence) for waiter, lease in chosen}
        assert {each.holder: {result.operation for result in each.results} for each in found} == {
            held: operations for held, operations in wanted.items() if operations
        }

    async def record_steps(self) -> None:
        chosen = self.some(3)
        steps = [StepRecord(origin=self.origin(lease), fingerprint="f", output="1") for _, lease in chosen]
        answers = await self.engine().record_steps(steps)
        assert [isinstance(answer, Stale) for answer in answers] == [
            not self.model.holds(waiter, lease.fence) for waiter, lease in chosen
        ]

    # ---- what comes

    async def create_tokens(self) -> None:
        minutes = self.random.choice([None, None, 4.5])
        (made,) = await self.engine().create_tokens(
            [TokenRequest(waitpoint_id=ids.new_waitpoint_id(), timeout=_minutes(minutes))]
        )
        assert isinstance(made, TokenCreated)
        self.model.goals.append(Goal(made.waitpoint_id, due=None if minutes is None else self.model.now + minutes))

    async def complete_tokens(self) -> None:
        tokens = [goal for goal in self.model.goals if goal.id.startswith("waitpoint") and goal.due is None][-8:]
        chosen = self.random.sample(tokens, min(len(tokens), self.random.randint(1, 3)))
        wanted = [TokenCompletion(waitpoint_id=ids.WaitpointId(goal.id), output="1") for goal in chosen]
        assert await self.engine().complete_tokens(wanted) == [not goal.is_done for goal in chosen]
        self.model.complete(chosen)

    async def run_children(self) -> None:
        leases = {lease.run_id: lease for lease in await self.children[0].lease()}
        for goal in self.model.goals:
            goal.lease = leases.pop(RunId(goal.id), goal.lease)
        assert leases == {}

    async def end_children(self) -> None:
        live = [goal for goal in self.model.goals if goal.lease is not None and not goal.is_done]
        chosen = self.random.sample(live, min(len(live), self.random.randint(1, 4)))
        held = [holder(goal.lease) for goal in chosen if goal.lease is not None]
        answers = await self.engine().complete_attempts([Succeeded(holder=each, output='"done"') for each in held])
        assert all(isinstance(answer, Completed) for answer in answers)
        self.model.complete(chosen)

    async def cancel_children(self) -> None:
        """Also those that have not begun."""
        live = [goal for goal in self.model.goals if goal.owner is not None and not goal.is_done]
        chosen = self.random.sample(live, min(len(live), 1))
        await self.engine().cancel_runs([RunId(goal.id) for goal in chosen], "stop")
        self.model.complete(chosen)

    async def time_passes(self) -> None:
        minutes = self.random.choice([0, 1, 3])
        self.clock.advance(timedelta(minutes=minutes))
        engine = self.engine()
        await engine.list_tasks()
        await Maintenance(engine._db, {1: engine._notifier}).tick()
        self.model.tick(minutes)

    # ---- runners

    async def lease(self) -> None:
        runner = self.random.choice(self.runners)
        fence = self.random.getrandbits(60)
        leases = await self.engine().lease(LeaseRequest(session_id=runner.session_id, fence=fence, room=PLENTY))
        taken = {lease.run_id: lease for lease in leases}
        for waiter in self.model.waiters:
            if waiter.state is not State.READY:
                continue
            lease = taken.pop(waiter.run_id, None)
            if waiter.is_for_anyone or waiter.head_start in (None, runner.session_id):
                assert lease is not None, "a run that is ready was not leased"
            if lease is not None:
                assert lease.is_resumed is (waiter.head_start == runner.session_id)
                delivered = self.model.lease(waiter, runner.session_id, lease)
                assert {result.operation for result in lease.results} == delivered
                assert (lease.attempt, lease.has_journal) >= (waiter.attempt, bool(delivered))
        assert taken == {}

    async def start(self) -> None:
        await self.engine().start_attempts([holder(lease) for _, lease in self.some(4)])

    async def head_starts_end(self) -> None:
        await self.stage.query("update detent.ready set resident_until = clock_timestamp() - interval '1 s'")
        for waiter in self.model.waiters:
            waiter.is_for_anyone = waiter.state is State.READY

    async def hand_back(self) -> None:
        chosen = self.some(2)
        await self.engine().hand_back([HandBack(holder=holder(lease), has_begun=True) for _, lease in chosen])
        for waiter, lease in chosen:
            self.model.hand_back(waiter, lease.fence)

    async def end_session(self) -> None:
        i = self.random.randrange(len(self.runners))
        old, self.runners[i] = self.runners[i], await self.stage.session(self.runners[i].version)
        await self.engine().end_session(SessionEnd(session_id=old.session_id))
        self.model.end_session(old.session_id)

    async def retry(self) -> None:
        for waiter, lease in self.some(1):
            failed = Failed(holder=holder(lease), error=BOOM, retry_in=timedelta(minutes=0.5))
            (answer,) = await self.engine().complete_attempts([failed])
            assert isinstance(answer, Completed) is self.model.retry(waiter, lease.fence, 0.5)

    async def finish(self) -> None:
        for waiter, lease in self.some(1):
            (answer,) = await self.engine().complete_attempts([Succeeded(holder=holder(lease), output="1")])
            assert isinstance(answer, Completed) is self.model.finish(waiter, lease.fence)

    async def cancel(self) -> None:
        waiter = self.random.choice(self.model.waiters)
        assert await self.engine().cancel_runs([waiter.run_id], "stop") == [True]
        self.model.cancel(waiter)


EVENTS: list[Callable[[Life], Awaitable[None]]] = [
    Life.wait_for_moments, Life.wait_for_tokens, Life.call, Life.call_by_key, Life.batch, Life.ask_again, Life.suspend,
    Life.suspend, Life.collect, Life.record_steps, Life.create_tokens, Life.complete_tokens, Life.complete_tokens,
    Life.run_children, Life.end_children, Life.end_children, Life.cancel_children, Life.time_passes, Life.lease, Life.lease,
    Life.lease, Life.start, Life.nap, Life.head_starts_end, Life.hand_back, Life.end_session, Life.retry, Life.finish,
    Life.cancel,
]  # fmt: skip


def _row(waiter: Waiter, status: str) -> tuple[object, ...]:
    """What the database should say; which of the two statuses of an executing run it has is not its affair."""
    said = status if status in waiter.state.value else waiter.state.value[0]
    session = ids.decode("session", waiter.session) if waiter.session is not None else None
    return said, session, waiter.fence, waiter.timer is not None


def _minutes(minutes: float | None) -> timedelta | None:
    return None if minutes is None else timedelta(minutes=minutes)


def _origin(message: Message) -> Origin:
    assert message.origin is not None
    return message.origin


def _at(message: Message, place: Origin) -> Message:
    return replace(message, origin=place)


async def _sent(engine: EngineBackend, messages: Sequence[Message]) -> list[Answer]:
    waits = [message for message in messages if isinstance(message, TimeWait | TokenWait)]
    children = [message for message in messages if isinstance(message, ChildRequest)]
    answers: list[object] = []
    if waits:
        answers += await engine.wait_for(waits)
    if children:
        answers += await engine.trigger_children(children)
    for message in messages:
        if isinstance(message, BatchChunk):
            answers.append(await engine.trigger_batch(message))
    return [_answer(answer) for answer in answers]


def _answer(answer: object) -> Answer:
    if isinstance(answer, ChildTriggered | ChunkTaken):
        answer = answer.wait
    match answer:
        case Stale():
            return Answer.STALE
        case Pending():
            return Answer.PENDING
        case Suspended():
            return Answer.SUSPENDED
        case _:
            return Answer.DONE


@pytest.fixture
async def connections(dsn: str) -> AsyncIterator[list[EngineBackend]]:
    made = [connect(dsn, size=1) for _ in range(2)]
    yield made
    for each in made:
        await each.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_to_runs_that_wait_is_as_the_model_says(
    stage: Stage, clock: Clock, connections: list[EngineBackend], seed: int
) -> None:
    life, past = Life(stage, clock, connections, random.Random(seed)), list[str]()
    await life.begin()
    for _ in range(STEPS):
        try:
            past.append(await life.step())
            await life.check()
        except AssertionError as error:
            error.add_note(f"seed {seed}, after {', '.join(past[-12:])}")
            raise
