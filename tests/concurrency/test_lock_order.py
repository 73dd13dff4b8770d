"""Everything at once: no call fails, nothing is lost, and the tables are consistent when the dust settles."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from detent.engine.backend import EngineBackend
from detent.engine.db import Db
from detent.protocol import ids
from detent.protocol.attempts import Failed
from detent.protocol.idempotency import Idempotency, WaitKey
from detent.protocol.ids import WaitpointId
from detent.protocol.journal import StepRecord
from detent.protocol.leases import HandBack, Lease
from detent.protocol.selection import RunSelection
from detent.protocol.sessions import SessionEnd
from detent.protocol.status import RunStatus
from detent.protocol.tokens import TokenCompletion, TokenCreated
from detent.protocol.waits import Suspension
from tests.concurrency.meeting import Blockade
from tests.concurrency.test_waits_meet_ends import succeeded
from tests.database import Clock
from tests.engine.stage import BOOM, Stage, Worker, child, chunk, holder, origin, request, time_wait
from tests.engine.test_tokens import token_request, token_wait

SECONDS = 3.0


def step(lease: Lease, operation: str) -> StepRecord:
    return StepRecord(origin=origin(lease, operation, wait=False), fingerprint="f", output="1")


class Storm:
    """Four engines that do something random to runs they all know, often several of them in one call."""

    def __init__(self, stage: Stage, worker: Worker, engines: list[EngineBackend], random_: random.Random) -> None:
        self.stage, self.worker, self.engines, self.random = stage, worker, engines, random_
        self.leases: list[Lease] = []
        self.made: list[str] = []
        self.tokens: list[WaitpointId] = []
        self.calls = 0

    async def rage(self, engine: EngineBackend, until: float) -> None:
        events: list[Callable[[EngineBackend], Awaitable[object]]] = [
            self.trigger, self.lease, self.lease, self.complete, self.complete, self.fail, self.call, self.call, self.sleep,
            self.batch, self.cancel, self.hand_back, self.renew, self.tick, self.start, self.die,
            self.create_tokens, self.wait_for_tokens, self.complete_tokens, self.collect, self.collect, self.record_steps,
        ]  # fmt: skip
        while asyncio.get_running_loop().time() < until:
            await self.random.choice(events)(engine)
            self.calls += 1

    def some(self) -> list[Lease]:
        return self.random.sample(self.leases, min(len(self.leases), self.random.randint(1, 8)))

    def key(self) -> Idempotency | None:
        if self.random.random() < 0.5:
            return None
        return Idempotency(key=str(self.random.randrange(20)), user_key="k", scope="global")

    def operation(self) -> str:
        return str(self.random.randrange(10**9))

    async def trigger(self, engine: EngineBackend) -> None:
        answers = await engine.trigger([request(idempotency=self.key()) for _ in range(10)])
        self.made += [answer.run_id for answer in answers]

    async def lease(self, engine: EngineBackend) -> None:
        self.leases += await Worker(engine, self.worker.session_id, "").lease(**{"async": 10, "process": 5})

    async def complete(self, engine: EngineBackend) -> None:
        await engine.complete_attempts([succeeded(lease) for lease in self.forget()])

    async def fail(self, engine: EngineBackend) -> None:
        retry = timedelta(0) if self.random.random() < 0.7 else None
        await engine.complete_attempts([Failed(holder=holder(x), error=BOOM, retry_in=retry) for x in self.forget()])

    def forget(self) -> list[Lease]:
        chosen = self.some()
        self.leases = [lease for lease in self.leases if lease not in chosen]
        return chosen

    async def call(self, engine: EngineBackend) -> None:
        wanted = [
            child(x, self.operation(), wait=self.random.random() < 0.7, idempotency=self.key()) for x in self.some()
        ]
        await engine.trigger_children(wanted)

    async def sleep(self, engine: EngineBackend) -> None:
        await engine.wait_for([time_wait(x, self.operation(), timedelta(0.01)) for x in self.some()])

    async def create_tokens(self, engine: EngineBackend) -> None:
        keys = [None if self.random.random() < 0.5 else WaitKey(key=str(self.random.randrange(20))) for _ in range(4)]
        for answer in await engine.create_tokens([token_request(key=key) for key in keys]):
            if isinstance(answer, TokenCreated):
                self.tokens.append(answer.waitpoint_id)

    async def wait_for_tokens(self, engine: EngineBackend) -> None:
        if self.tokens:
            some = [(x, self.random.choice(self.tokens), self.random.random() < 0.5) for x in self.some()]
            await engine.wait_for([token_wait(x, t, self.operation(), suspends=suspends) for x, t, suspends in some])

    async def complete_tokens(self, engine: EngineBackend) -> None:
        chosen = self.random.sample(self.tokens, min(len(self.tokens), 4))
        await engine.complete_tokens([TokenCompletion(waitpoint_id=token, output="1") for token in chosen])

    async def collect(self, engine: EngineBackend) -> None:
        """And stand still."""
        some = list({lease.run_id: lease for lease in self.some()}.values())
        found = await engine.collect([holder(lease) for lease in some])
        known = {each.holder: tuple(result.operation for result in each.results) for each in found}
        until = timedelta(0.01) if self.random.random() < 0.5 else None
        await engine.suspend(
            [Suspension(holder=holder(x), until=until, delivered=known.get(holder(x), ())) for x in some]
        )

    async def record_steps(self, engine: EngineBackend) -> None:
        await engine.record_steps([step(lease, self.operation()) for lease in self.some()])

    async def batch(self, engine: EngineBackend) -> None:
        for lease in self.some()[:1]:
            batch_id, place = ids.new_batch_id(), origin(lease, self.operation())
            await engine.trigger_batch(chunk(batch_id, [0, 1], origin=place, idempotency=self.key()))
            await engine.trigger_batch(chunk(batch_id, [1, 2], total=3, origin=place))

    async def cancel(self, engine: EngineBackend) -> None:
        chosen = self.random.sample(self.made, min(len(self.made), 4))
        await engine.cancel_runs([ids.RunId(run_id) for run_id in chosen], "stop")

    async def hand_back(self, engine: EngineBackend) -> None:
        await engine.hand_back([HandBack(holder=holder(lease), has_begun=True) for lease in self.some()])

    async def start(self, engine: EngineBackend) -> None:
        await engine.start_attempts([holder(lease) for lease in self.some()])

    async def renew(self, engine: EngineBackend) -> None:
        await Worker(engine, self.worker.session_id, "").renew(*self.some(), in_flight=(1, 2))

    async def tick(self, engine: EngineBackend) -> None:
        await engine.maintenance.tick()

    async def die(self, engine: EngineBackend) -> None:
        old, self.worker = self.worker, await self.stage.session(self.worker.version)
        suspects = tuple({lease.run_id for lease in self.some()})
        await Worker(engine, old.session_id, "").end(suspects=suspects, error=BOOM)


async def test_a_storm_of_calls_from_four_sides(
    stage: Stage, worker: Worker, engines: list[EngineBackend], clock: Clock
) -> None:
    storm = Storm(stage, worker, engines, random.Random())
    until = asyncio.get_running_loop().time() + SECONDS
    async with asyncio.TaskGroup() as group:
        for engine in engines:
            group.create_task(storm.rage(engine, until))
    assert storm.calls > 100
    for session in await stage.engine.list_sessions():
        await stage.engine.end_session(SessionEnd(session_id=session.session_id))
    await calm_down(stage, worker.version, clock)


async def calm_down(stage: Stage, version: str, clock: Clock) -> None:
    worker = await stage.session(version)
    while await stage.count("runs"):
        clock.advance(timedelta(days=1))
        await stage.tick()
        leases = await worker.lease(**{"async": 500, "process": 500})
        await worker.succeed(*leases)
        if not leases:
            # Keys let runs wait for each other in a circle.
            (stuck, *_) = await stage.engine.list_runs(RunSelection(statuses=(RunStatus.WAITING,)))
            assert await stage.engine.cancel_runs([stuck.id], "waits for itself") == [True]


# ---- the same moment, twice: nobody has to be thrown out


@pytest.fixture
def no_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadlock, which would be undone and repeated after a second, fails."""

    async def fail(db: Db, tries: int, started: float, patience: float | None, error: Exception) -> None:
        raise error

    monkeypatch.setattr("detent.engine.db._REPEATED_ERRORS", ())
    monkeypatch.setattr(Db, "_pause", fail)


@pytest.mark.usefixtures("no_repeats")
async def test_two_first_steps_of_one_run_are_recorded_one_after_the_other(
    stage: Stage, worker: Worker, engines: list[EngineBackend], blockade: Blockade
) -> None:
    lease = await stage.leased(worker)
    calls = [engine.record_steps([step(lease, f"{i}")]) for i, engine in enumerate(engines)]
    await blockade.pile_up("select from detent.runs for update", [], *calls)
    assert await stage.count("journal") == len(engines)


@pytest.mark.usefixtures("no_repeats")
@pytest.mark.parametrize("is_retried", [True, False])
async def test_a_run_that_fails_while_what_it_waits_for_completes_stops_nobody(
    stage: Stage, worker: Worker, engines: list[EngineBackend], blockade: Blockade, is_retried: bool
) -> None:
    """The completion is held up between the edges of the two runs that wait for it."""
    one, two = [await stage.leased(worker) for _ in range(2)]
    (token,) = await stage.engine.create_tokens([token_request()])
    assert isinstance(token, TokenCreated)
    for lease in (one, two):
        await stage.engine.wait_for([token_wait(lease, token.waitpoint_id, suspends=False)])
    retry = timedelta(0) if is_retried else None
    await blockade.pile_up(
        "select from detent.waits where run_id = %s for update",
        [ids.decode("run", two.run_id)],
        engines[0].complete_tokens([TokenCompletion(waitpoint_id=token.waitpoint_id, output="1")]),
        engines[1].complete_attempts([Failed(holder=holder(one), error=BOOM, retry_in=retry)]),
    )
    assert [delivery.holder for delivery in await stage.engine.collect([holder(two)])] == [holder(two)]
    assert await stage.count("waits") == 1
