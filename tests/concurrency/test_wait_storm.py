"""Random waits at the same moment: each result is delivered once, to whoever holds the run, and no wake-up is lost.

In each round, calls on four connections meet at the same few runs. What they answer tells what is still owed to each run's code;
after each round, and when everything has come, the books must balance.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from detent.engine.backend import EngineBackend
from detent.engine.maintenance import Maintenance
from detent.protocol import ids
from detent.protocol.attempts import Completed, Failed, Succeeded
from detent.protocol.batches import ChunkTaken
from detent.protocol.children import ChildRequest, ChildTriggered
from detent.protocol.fence import Holder
from detent.protocol.idempotency import Idempotency
from detent.protocol.ids import RunId, SessionId, WaitpointId
from detent.protocol.journal import StepRecord
from detent.protocol.leases import HandBack, LeaseRequest
from detent.protocol.operations import Origin
from detent.protocol.sessions import SessionEnd
from detent.protocol.tokens import TokenCompletion, TokenRequest
from detent.protocol.waits import Pending, Suspended, Suspension, TimeWait, TokenWait
from detent.protocol.wake_ups import Wake
from tests.concurrency.meeting import Blockade
from tests.database import Clock
from tests.engine.invariants import broken_rules
from tests.engine.stage import BOOM, PLENTY, Stage, Worker, chunk, request, task

SEEDS = range(int(os.environ.get("DETENT_TEST_SEEDS", "4")))
ROUNDS = 60
WAITERS = 3

Edge = tuple[RunId, str]
Call = Callable[[EngineBackend], Awaitable[None]]


@dataclass(slots=True)
class Books:
    """What has been asked for and not been given yet, and what one round changed."""

    owed: set[Edge] = field(default_factory=set)
    asked: set[Edge] = field(default_factory=set)
    leased: list[Edge] = field(default_factory=list)
    """What came with leases: once."""
    collected: set[Edge] = field(default_factory=set)
    """What was collected, and the database was told so."""
    dropped: set[RunId] = field(default_factory=set)
    """Runs whose attempt is over: nothing is owed to it any more."""

    def close_round(self) -> None:
        self.owed |= self.asked
        leased = [edge for edge in self.leased if edge[0] not in self.dropped]
        collected = {edge for edge in self.collected if edge[0] not in self.dropped}
        given = collected | set(leased)
        assert len(given) == len(leased) + len(collected), "something was delivered twice"
        assert given <= self.owed, "something was delivered that nobody waited for, or again"
        self.owed = {edge for edge in self.owed - given if edge[0] not in self.dropped}
        self.asked, self.leased, self.collected, self.dropped = set(), [], set(), set()


@dataclass(slots=True)
class Storm:
    stage: Stage
    engines: Sequence[EngineBackend]
    blockade: Blockade
    clock: Clock
    random: random.Random
    books: Books = field(default_factory=Books)
    runners: list[Worker] = field(default_factory=list)
    childminder: list[Worker] = field(default_factory=list)
    waiters: list[RunId] = field(default_factory=list)
    held: dict[RunId, list[Holder]] = field(default_factory=dict)
    collected: dict[Holder, tuple[str, ...]] = field(default_factory=dict)
    tokens: list[WaitpointId] = field(default_factory=list)
    children: list[Holder] = field(default_factory=list)
    heard: set[SessionId] = field(default_factory=set)
    edges: dict[Edge, bool] = field(default_factory=dict)
    operations: int = 0
    target: RunId = field(init=False)

    async def begin(self) -> None:
        self.runners = [await self.stage.worker(task("work", max_attempts=200)) for _ in range(2)]
        self.childminder = [await self.stage.worker("item")]
        for engine in self.engines:
            engine.hear(self._hear)

    def _hear(self, wake: Wake) -> bool:
        self.heard |= set(wake.resumed)
        return True

    # ---- rounds

    async def round(self) -> list[str]:
        """Let some calls meet at a run; often they find it locked, and come to stand before it one after the other."""
        while len(self.waiters) < WAITERS:
            self.waiters.append(await self.stage.trigger("work"))
        if self.random.random() < 0.5:
            await self.end_head_starts()
        self.heard.clear()
        self.target = self.random.choice(self.waiters)
        chosen = [self.random.choice(CALLS) for _ in range(self.random.randint(2, len(self.engines)))]
        calls = [call(self)(engine) for call, engine in zip(chosen, self.engines, strict=False)]
        if self.random.random() < 0.5:
            locked = "select from detent.runs where id = %s for update"
            await self.blockade.pile_up(locked, [ids.decode("run", self.target)], *map(_coroutine, calls))
        else:
            await asyncio.gather(*calls)
        return [call.__name__ for call in chosen]

    async def end_head_starts(self) -> None:
        await self.stage.query("update detent.ready set resident_until = clock_timestamp() - interval '1 s'")

    async def check(self) -> None:
        self.books.close_round()
        assert await broken_rules(self.stage.connection) == {}
        rows = await self.stage.query(
            "select waits.run_id, operation, is_done, status in ('DEQUEUED', 'EXECUTING'), session_id "
            "from detent.waits join detent.runs on runs.id = run_id"
        )
        edges: dict[Edge, bool] = {}
        for run_id, operation, is_done, is_held, session in rows:
            edge = (RunId(ids.encode("run", run_id)), operation)
            edges[edge] = is_done
            if is_held and is_done and not self.edges.get(edge, False):
                assert ids.encode("session", session) in self.heard, "a run was not told of what came"
        assert set(edges) == self.books.owed
        self.edges = edges

    def holder(self) -> Holder | None:
        """The target as a runner sees it, now and then as it did before."""
        known = self.held.get(self.target if self.random.random() < 0.8 else self.random.choice(self.waiters), [])
        if not known:
            return None
        return known[-1] if self.random.random() < 0.85 else self.random.choice(known)

    def origin(self, held: Holder) -> Origin:
        self.operations += 1
        suspends = self.random.random() < 0.5
        return Origin(holder=held, operation=f"{self.operations}", wait=True, suspends=suspends)

    def asked(self, origin: Origin, answer: object) -> None:
        if isinstance(answer, ChildTriggered | ChunkTaken):
            answer = answer.wait
        if isinstance(answer, Pending | Suspended):
            self.books.asked.add((origin.holder.run_id, origin.operation))

    # ---- calls: what to ask is chosen before the round begins, and asked in it

    def wait(self) -> Call:
        held = self.holder()
        if held is None:
            return self.lease()
        origins = [self.origin(held) for _ in range(2)]
        moment = TimeWait(origin=origins[0], until=timedelta(minutes=1), waitpoint_id=ids.new_waitpoint_id())
        waits: list[TimeWait | TokenWait] = [moment]
        if self.tokens:
            waits.append(TokenWait(origin=origins[1], waitpoint_id=self.random.choice(self.tokens[-3:])))

        async def call(engine: EngineBackend) -> None:
            for wait, answer in zip(waits, await engine.wait_for(waits), strict=True):
                self.asked(wait.origin, answer)

        return call

    def call_child(self) -> Call:
        held = self.holder()
        if held is None:
            return self.lease()
        key = Idempotency(key=f"{self.random.randrange(1000):064}", user_key="k", scope="global")
        wanted = [
            ChildRequest(request=request("item", idempotency=key), origin=self.origin(held)),
            ChildRequest(request=request("item"), origin=self.origin(held)),
        ]

        async def call(engine: EngineBackend) -> None:
            for each, answer in zip(wanted, await engine.trigger_children(wanted), strict=True):
                self.asked(each.origin, answer)

        return call

    def batch(self) -> Call:
        held = self.holder()
        if held is None:
            return self.lease()
        place, batch_id = self.origin(held), ids.new_batch_id()

        async def call(engine: EngineBackend) -> None:
            whole = chunk(batch_id, range(2), total=2, origin=place, task_id="item")
            self.asked(place, await engine.trigger_batch(whole))

        return call

    def suspend(self) -> Call:
        held = self.holder()
        if held is None:
            return self.lease()
        delivered = self.collected.get(held, ())
        until = self.random.choice([None, timedelta(0), timedelta(minutes=1)])

        async def call(engine: EngineBackend) -> None:
            (answer,) = await engine.suspend([Suspension(holder=held, until=until, delivered=delivered)])
            if isinstance(answer, Pending | Suspended):
                self.books.collected |= {(held.run_id, operation) for operation in delivered}
                self.collected.pop(held, None)

        return call

    def collect(self) -> Call:
        holders = [known[-1] for known in self.held.values() if known]

        async def call(engine: EngineBackend) -> None:
            for delivery in await engine.collect(holders):
                self.collected[delivery.holder] = tuple(result.operation for result in delivery.results)

        return call

    def record(self) -> Call:
        held = self.holder()
        if held is None:
            return self.lease()
        step = StepRecord(origin=self.origin(held), fingerprint="f", output="1")

        async def call(engine: EngineBackend) -> None:
            await engine.record_steps([step])

        return call

    def complete_tokens(self) -> Call:
        chosen = self.random.sample(self.tokens[-4:], min(len(self.tokens), 2))
        wanted = [TokenCompletion(waitpoint_id=token, output="1") for token in chosen]

        async def call(engine: EngineBackend) -> None:
            await engine.complete_tokens(wanted)
            (made,) = await engine.create_tokens([TokenRequest(waitpoint_id=ids.new_waitpoint_id())])
            self.tokens.append(getattr(made, "waitpoint_id"))  # noqa: B009 - without an origin it is never refused

        return call

    def end_children(self) -> Call:
        self.random.shuffle(self.children)
        chosen, self.children = self.children[:3], self.children[3:]

        async def call(engine: EngineBackend) -> None:
            await engine.complete_attempts([Succeeded(holder=each, output="1") for each in chosen])
            wanted = LeaseRequest(
                session_id=self.childminder[0].session_id, fence=self.random.getrandbits(60), room=PLENTY
            )
            self.children += [
                Holder(run_id=lease.run_id, fence=lease.fence) for lease in await engine.lease(wanted)
            ]  # fmt: skip

        return call

    def tick(self) -> Call:
        self.clock.advance(timedelta(minutes=self.random.choice([0, 2])))

        async def call(engine: EngineBackend) -> None:
            await engine.list_tasks()
            await Maintenance(engine._db, {1: engine._notifier}).tick()

        return call

    def lease(self) -> Call:
        wanted = LeaseRequest(
            session_id=self.random.choice(self.runners).session_id, fence=self.random.getrandbits(60), room=PLENTY
        )

        async def call(engine: EngineBackend) -> None:
            for lease in await engine.lease(wanted):
                self.held.setdefault(lease.run_id, []).append(Holder(run_id=lease.run_id, fence=lease.fence))
                self.books.leased += [(lease.run_id, result.operation) for result in lease.results]

        return call

    def hand_back(self) -> Call:
        held = self.holder()
        if held is None:
            return self.lease()

        async def call(engine: EngineBackend) -> None:
            await engine.hand_back([HandBack(holder=held)])

        return call

    def end_session(self) -> Call:
        i = self.random.randrange(len(self.runners))
        old = self.runners[i]

        async def call(engine: EngineBackend) -> None:
            self.runners[i] = await self.stage.session(old.version)
            await engine.end_session(SessionEnd(session_id=old.session_id))

        return call

    def retry(self) -> Call:
        held = self.holder()
        if held is None:
            return self.lease()

        async def call(engine: EngineBackend) -> None:
            (answer,) = await engine.complete_attempts([Failed(holder=held, error=BOOM, retry_in=timedelta(0))])
            if isinstance(answer, Completed):
                self.books.dropped.add(held.run_id)

        return call

    def cancel(self) -> Call:
        target = self.target

        async def call(engine: EngineBackend) -> None:
            if await engine.cancel_runs([target], "stop") == [True]:
                self.books.dropped.add(target)
                self.waiters.remove(target)
                self.held.pop(target, None)

        return call

    # ---- the end

    async def calm_down(self) -> None:
        """Everything comes; when nobody asks for more, nothing is owed."""
        engine = self.engines[0]
        for _ in range(10):
            await self.end_head_starts()
            await engine.complete_tokens([TokenCompletion(waitpoint_id=token, output="1") for token in self.tokens])
            while self.children:
                await self.end_children()(engine)
            for ending in (self.end_children, self.tick, self.lease, self.collect):
                await ending()(engine)
            self.clock.advance(timedelta(minutes=2))
            for known in list(self.held.values()):
                self.target = known[-1].run_id
                delivered = self.collected.pop(known[-1], ())
                (answer,) = await engine.suspend([Suspension(holder=known[-1], delivered=delivered)])
                if isinstance(answer, Pending | Suspended):
                    self.books.collected |= {(known[-1].run_id, operation) for operation in delivered}
            await self.check()
            if not self.books.owed:
                return
        pytest.fail(f"{self.books.owed} never came")


CALLS: list[Callable[[Storm], Call]] = [
    Storm.wait, Storm.wait, Storm.call_child, Storm.batch, Storm.suspend, Storm.suspend, Storm.collect, Storm.record,
    Storm.complete_tokens, Storm.complete_tokens, Storm.end_children, Storm.end_children, Storm.tick, Storm.tick,
    Storm.lease, Storm.lease, Storm.hand_back, Storm.end_session, Storm.retry, Storm.cancel,
]  # fmt: skip


async def _coroutine(call: Awaitable[None]) -> None:
    await call


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_a_run_waits_for_is_delivered_once_whoever_comes_at_once(
    stage: Stage, engines: list[EngineBackend], blockade: Blockade, clock: Clock, seed: int
) -> None:
    """The seed chooses what meets; in what order it then happens is chance."""
    storm, past = Storm(stage, engines, blockade, clock, random.Random(seed)), list[list[str]]()
    await storm.begin()
    try:
        for _ in range(ROUNDS):
            past.append(await storm.round())
            await storm.check()
        await storm.calm_down()
    except AssertionError as error:
        error.add_note(f"seed {seed}, after {past[-4:]}")
        raise
