"""The words in which tests speak to an engine: what is asked for, a worker that holds runs, and what became of them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from psycopg import AsyncConnection

from detent.engine.backend import EngineBackend
from detent.protocol import ids
from detent.protocol.attempts import AttemptOutcome, Broken, Completed, Failed, RanOutOfMemory, Succeeded, TimedOut
from detent.protocol.batches import BatchChunk, ChunkTaken
from detent.protocol.children import ChildRequest, ChildTriggered
from detent.protocol.execution import Isolation
from detent.protocol.fence import Holder, Stale
from detent.protocol.flow import LimitChange, LimitDeclaration, LimitKind, LimitRecord, LimitRef
from detent.protocol.ids import BatchId, RunId, SessionId
from detent.protocol.journal import JournalEntry, JournalRead
from detent.protocol.leases import HandBack, Lease, LeaseRequest
from detent.protocol.operations import Origin
from detent.protocol.refusal import Refused
from detent.protocol.registration import TaskRegistration, WorkerRegistration
from detent.protocol.run_error import RunError
from detent.protocol.runs import RunRecord
from detent.protocol.sessions import Renewal, Renewed, SessionEnd, SessionEnded, SessionOpening
from detent.protocol.status import RunStatus
from detent.protocol.triggering import Triggered, TriggerRequest
from detent.protocol.waits import Pending, Suspended, TimeWait, WaitResult

BOOM = RunError(name="ValueError", message="boom")
SOON = timedelta(seconds=30)
PLENTY = {Isolation.ASYNC: 100, Isolation.THREAD: 100, Isolation.PROCESS: 100}


def task(
    task_id: str, *, isolation: Isolation = Isolation.ASYNC, max_attempts: int = 3, **options: Any
) -> TaskRegistration:
    retry = {"max_attempts": max_attempts, "factor": 2, "min_timeout": 1, "max_timeout": 10, "randomize": True}
    fields = {"file_path": f"tasks/{task_id}.py", "queue": f"task/{task_id}", "retry": json.dumps(retry)} | options
    return TaskRegistration(task_id=task_id, isolation=isolation, **fields)


def registration(
    *tasks: str | TaskRegistration, version: str | None = None, limits: Sequence[LimitDeclaration] = ()
) -> WorkerRegistration:
    full = tuple(task(t) if isinstance(t, str) else t for t in tasks)
    return WorkerRegistration(tasks=full, version=version, limits=tuple(limits))


def queue(name: str, concurrency_limit: int | None = None, **options: Any) -> LimitDeclaration:
    return LimitDeclaration(kind=LimitKind.QUEUE, name=name, per_key=concurrency_limit, **options)


def limit(name: str, **bounds: Any) -> LimitDeclaration:
    return LimitDeclaration(kind=LimitKind.LIMIT, name=name, **bounds)


def queue_ref(name: str) -> LimitRef:
    return LimitRef(kind=LimitKind.QUEUE, name=name)


def limit_ref(name: str) -> LimitRef:
    return LimitRef(kind=LimitKind.LIMIT, name=name)


ENVIRONMENT = LimitRef(kind=LimitKind.ENVIRONMENT)


def request(task_id: str = "work", **options: Any) -> TriggerRequest:
    return TriggerRequest(**{"run_id": ids.new_run_id(), "task_id": task_id, "payload": "{}"} | options)


def holder(lease: Lease) -> Holder:
    return Holder(run_id=lease.run_id, fence=lease.fence)


def origin(lease: Lease, operation: str, *, wait: bool = True, suspends: bool = True) -> Origin:
    return Origin(holder=holder(lease), operation=operation, wait=wait, suspends=suspends, version=lease.version)


def child(
    lease: Lease, operation: str, task_id: str = "work", *, wait: bool = True, suspends: bool = True, **options: Any
) -> ChildRequest:
    asked = origin(lease, operation, wait=wait, suspends=suspends)
    return ChildRequest(request=request(task_id, **options), origin=asked)


def time_wait(lease: Lease, operation: str, until: timedelta = timedelta(hours=1)) -> TimeWait:
    return TimeWait(origin=origin(lease, operation), until=until, waitpoint_id=ids.new_waitpoint_id())


def chunk(
    batch_id: BatchId, indexes: Sequence[int], *, total: int | None = None, origin: Origin | None = None, **options: Any
) -> BatchChunk:
    items = tuple((i, request(**{"run_id": ids.item_run_id(batch_id, i)} | options)) for i in indexes)
    return BatchChunk(batch_id=batch_id, items=items, total=total, origin=origin)


@dataclass(slots=True)
class Worker:
    """A runner with an open session, whose tasks do what the test says."""

    engine: EngineBackend
    session_id: SessionId
    version: str

    async def lease(self, fence: int | None = None, **room: int) -> list[Lease]:
        wanted = {Isolation(kind): places for kind, places in room.items()} or PLENTY
        fence = fence if fence is not None else secrets.randbits(62)
        return await self.engine.lease(LeaseRequest(session_id=self.session_id, fence=fence, room=wanted))

    async def lease_one(self) -> Lease:
        (lease,) = await self.lease()
        return lease

    async def start(self, *leases: Lease) -> None:
        await self.engine.start_attempts([holder(lease) for lease in leases])

    async def settle(self, *outcomes: AttemptOutcome) -> list[Completed | Stale]:
        return await self.engine.complete_attempts(outcomes)

    async def succeed(self, *leases: Lease, output: str | None = '"done"') -> list[Completed | Stale]:
        return await self.settle(*(Succeeded(holder=holder(lease), output=output) for lease in leases))

    async def fail(self, *leases: Lease, retry_in: Any = None, error: RunError = BOOM) -> list[Completed | Stale]:
        return await self.settle(*(Failed(holder=holder(x), error=error, retry_in=retry_in) for x in leases))

    async def time_out(self, *leases: Lease) -> list[Completed | Stale]:
        return await self.settle(*(TimedOut(holder=holder(lease), error=BOOM) for lease in leases))

    async def run_out_of_memory(self, *leases: Lease, error: RunError = BOOM) -> list[Completed | Stale]:
        return await self.settle(*(RanOutOfMemory(holder=holder(lease), error=error) for lease in leases))

    async def give_up(self, *leases: Lease) -> list[Completed | Stale]:
        return await self.settle(*(Broken(holder=holder(lease), error=BOOM) for lease in leases))

    async def sleep(
        self, lease: Lease, operation: str = "0", **until: float
    ) -> WaitResult | Pending | Suspended | Refused | Stale:
        (answer,) = await self.engine.wait_for([time_wait(lease, operation, timedelta(**until or {"hours": 1}))])
        return answer

    async def call(
        self, lease: Lease, operation: str = "0", task_id: str = "work", **options: Any
    ) -> ChildTriggered | Stale | Refused:
        (answer,) = await self.engine.trigger_children([child(lease, operation, task_id, **options)])
        return answer

    async def renew(self, *held: Lease, in_flight: tuple[int, ...] = ()) -> Renewed:
        renewal = Renewal(session_id=self.session_id, held=tuple(map(holder, held)), in_flight=in_flight)
        (renewed,) = await self.engine.renew_sessions([renewal])
        return renewed

    async def hand_back(self, *leases: Lease, has_begun: bool = True) -> None:
        await self.engine.hand_back([HandBack(holder=holder(lease), has_begun=has_begun) for lease in leases])

    async def end(self, **options: Any) -> int:
        return (await self.end_telling(**options)).returned

    async def end_telling(self, **options: Any) -> SessionEnded:
        return await self.engine.end_session(SessionEnd(session_id=self.session_id, **options))

    async def batch(self, lease: Lease, count: int, operation: str = "0", **options: Any) -> tuple[BatchId, ChunkTaken]:
        """Trigger a batch of *count* items in one chunk, and wait for it."""
        batch_id = ids.new_batch_id()
        whole = chunk(batch_id, range(count), total=count, origin=origin(lease, operation), **options)
        taken = await self.engine.trigger_batch(whole)
        assert isinstance(taken, ChunkTaken)
        return batch_id, taken


async def journal_of(
    engine: EngineBackend, held: Holder, *, after: int = 0, limit: int = 500
) -> list[JournalEntry] | Stale:
    """Return a page of a run's journal, without what differs from one test to the next."""
    (page,) = await engine.read_journals([JournalRead(holder=held, after=after)], limit=limit)
    return page if isinstance(page, Stale) else [replace(entry, number=0, recorded_at=None) for entry in page]


@dataclass(frozen=True, slots=True)
class Stage:
    """An engine on an empty database, and the database itself."""

    engine: EngineBackend
    connection: AsyncConnection

    async def worker(self, *tasks: str | TaskRegistration, **options: Any) -> Worker:
        name = await self.engine.register_worker(registration(*(tasks or ("work",)), **options))
        return await self.session(name)

    async def session(self, version: str) -> Worker:
        session_id = ids.new_session_id()
        await self.engine.open_session(SessionOpening(session_id=session_id, version=version, worker="host:1"))
        return Worker(self.engine, session_id, version)

    async def trigger(self, task_id: str = "work", **options: Any) -> RunId:
        (answer,) = await self.engine.trigger([request(task_id, **options)])
        assert isinstance(answer, Triggered)
        return answer.run_id

    async def trigger_many(self, count: int, task_id: str = "work", **options: Any) -> list[RunId]:
        answers = await self.engine.trigger([request(task_id, **options) for _ in range(count)])
        return [answer.run_id for answer in answers if isinstance(answer, Triggered)]

    async def change(self, change: LimitChange) -> LimitRecord:
        (answer,) = await self.engine.change_limits([change])
        assert isinstance(answer, LimitRecord)
        return answer

    async def leased(self, worker: Worker, task_id: str = "work", **options: Any) -> Lease:
        """Make a run and have *worker* lease it, when nothing else is ready."""
        run_id = await self.trigger(task_id, **options)
        lease = await worker.lease_one()
        assert lease.run_id == run_id
        return lease

    async def run(self, run_id: RunId) -> RunRecord:
        (record,) = await self.engine.retrieve_runs([run_id])
        assert record is not None
        return record

    async def status(self, run_id: RunId) -> RunStatus:
        return (await self.run(run_id)).status

    async def statuses(self, *run_ids: RunId) -> list[RunStatus]:
        return [await self.status(run_id) for run_id in run_ids]

    async def tick(self) -> float:
        maintenance = self.engine.maintenance
        try:
            return await maintenance.tick()
        finally:
            await maintenance.close()

    async def carry_on(self) -> bool:
        """Do a part of the long work; whether there may be more of it."""
        maintenance = self.engine.maintenance
        try:
            return await maintenance.carry_on()
        finally:
            await maintenance.close()

    async def a_moment_passes(self) -> None:
        """What is due at once is ready. (The clock of a machine may step back by less than this.)"""
        await self.query("update testing.clock set shift = shift + interval '1 second'")
        await self.tick()

    async def query(self, statement: str, *params: object) -> list[tuple[Any, ...]]:
        cursor = await self.connection.execute(statement.encode(), params)
        return await cursor.fetchall() if cursor.description else []

    async def count(self, table: str) -> int:
        ((number,),) = await self.query(f"select count(*) from detent.{table}")
        return number
