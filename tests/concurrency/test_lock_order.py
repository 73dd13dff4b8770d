"""Everything at once: no call fails, nothing is lost, and the tables are consistent when the dust settles."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

from detent.engine.backend import EngineBackend
from detent.protocol import ids
from detent.protocol.models import Failed, HandBack, Idempotency, Lease, RunFilter, SessionEnd
from detent.protocol.status import RunStatus
from tests.concurrency.test_waits_meet_ends import succeeded
from tests.database import Clock
from tests.engine.stage import BOOM, Stage, Worker, child, chunk, holder, origin, request, time_wait

SECONDS = 3.0


class Storm:
    """Four engines that do something random to runs they all know, often several of them in one call."""

    def __init__(self, stage: Stage, worker: Worker, engines: list[EngineBackend], random_: random.Random) -> None:
        self.stage, self.worker, self.engines, self.random = stage, worker, engines, random_
        self.leases: list[Lease] = []
        self.made: list[str] = []
        self.calls = 0

    async def rage(self, engine: EngineBackend, until: float) -> None:
        events: list[Callable[[EngineBackend], Awaitable[object]]] = [
            self.trigger, self.lease, self.lease, self.complete, self.complete, self.fail, self.call, self.call, self.sleep,
            self.batch, self.cancel, self.hand_back, self.renew, self.tick, self.start, self.die,
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
            (stuck, *_) = await stage.engine.list_runs(RunFilter(statuses=(RunStatus.WAITING,)))
            assert await stage.engine.cancel_runs([stuck.id], "waits for itself") == [True]
