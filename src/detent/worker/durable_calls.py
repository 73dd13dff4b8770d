"""The durable operations of all runs of a process: gathered into few calls, asked until the database answers."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Sequence
from typing import TypeVar

from detent.protocol.backend import WorkerBackend
from detent.protocol.batches import BatchChunk, BatchCreated, BatchCreation, ChunkTaken
from detent.protocol.children import ChildRequest, ChildTriggered
from detent.protocol.coalesce import Coalescer
from detent.protocol.fence import Holder, Stale
from detent.protocol.ids import BatchId
from detent.protocol.journal import JournalEntry, JournalRead, Recorded, StepRecord
from detent.protocol.metadata import MetadataUpdate, MetadataUpdated
from detent.protocol.refusal import Refused
from detent.protocol.runs import RunOutcome
from detent.protocol.tags import TagsAdded, TagsAddition
from detent.protocol.tokens import TokenCreated, TokenRequest
from detent.protocol.waits import Delivery, Pending, Suspended, Suspension, Wait, WaitResult
from detent.worker.persistence import persistently

Q = TypeVar("Q")
A = TypeVar("A")

_PAGE = 500


class DurableCalls:
    """A cancelled caller never cancels the call that it shares with others."""

    def __init__(self, backend: WorkerBackend) -> None:
        self.backend = backend
        self._children: Coalescer[ChildRequest, ChildTriggered | Stale | Refused] = Coalescer(
            persistently(backend.trigger_children), weigh=_weigh, in_flight=2
        )
        self._waits: Coalescer[Wait, WaitResult | Pending | Suspended | Refused | Stale] = Coalescer(
            persistently(backend.wait_for), in_flight=2
        )
        self._steps: Coalescer[StepRecord, Recorded | Stale] = Coalescer(
            persistently(backend.record_steps), weigh=_weigh_step, in_flight=2
        )
        self._tokens: Coalescer[TokenRequest, TokenCreated | Refused | Stale] = Coalescer(
            persistently(backend.create_tokens)
        )
        self._suspensions: Coalescer[Suspension, Suspended | Pending | Stale] = Coalescer(persistently(backend.suspend))
        self._journals: Coalescer[JournalRead, list[JournalEntry] | Stale] = Coalescer(
            persistently(backend.read_journals), most=100, in_flight=2
        )
        self._hooks: Coalescer[Holder, None] = Coalescer(persistently(backend.end_hooks))
        self._metadata: Coalescer[MetadataUpdate, MetadataUpdated | Stale] = Coalescer(
            persistently(backend.update_metadata), weigh=_weigh_update, most=100
        )
        self._tags: Coalescer[TagsAddition, TagsAdded | Stale] = Coalescer(persistently(backend.add_tags))
        self._collect = persistently(backend.collect)
        self._new_batch = persistently(backend.create_batch)
        self._batch = persistently(backend.trigger_batch)
        self._abort = persistently(backend.abort_batch)
        self._results = persistently(backend.read_batch_results)
        # What is shared between runs must not run in the context of the one that asked first.
        self._context = contextvars.Context()
        self._tasks: set[asyncio.Task[object]] = set()

    def trigger_child(self, request: ChildRequest) -> asyncio.Future[ChildTriggered | Stale | Refused]:
        return self._context.run(self._children, request)

    def wait_for(self, wait: Wait) -> asyncio.Future[WaitResult | Pending | Suspended | Refused | Stale]:
        return self._context.run(self._waits, wait)

    def record_step(self, step: StepRecord) -> asyncio.Future[Recorded | Stale]:
        return self._context.run(self._steps, step)

    def create_token(self, request: TokenRequest) -> asyncio.Future[TokenCreated | Refused | Stale]:
        return self._context.run(self._tokens, request)

    def suspend(self, suspension: Suspension) -> asyncio.Future[Suspended | Pending | Stale]:
        return self._context.run(self._suspensions, suspension)

    def end_hooks(self, holder: Holder) -> asyncio.Future[None]:
        return self._context.run(self._hooks, holder)

    def update_metadata(self, update: MetadataUpdate) -> asyncio.Future[MetadataUpdated | Stale]:
        return self._context.run(self._metadata, update)

    def add_tags(self, addition: TagsAddition) -> asyncio.Future[TagsAdded | Stale]:
        return self._context.run(self._tags, addition)

    async def collect(self, holders: Sequence[Holder]) -> list[Delivery]:
        return await self._collect(holders)

    async def _apart(self, call: Coroutine[object, object, A]) -> A:
        """Await a call outside of the run's context: what it starts is not the run's. It goes on when the wait is given up."""
        return await asyncio.shield(self.run_apart(call))

    def run_apart(self, call: Coroutine[object, object, A]) -> asyncio.Task[A]:
        """Start something in no run's name."""
        task = asyncio.get_running_loop().create_task(call, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def create_batch(self, creation: BatchCreation) -> BatchCreated | Stale:
        return await self._apart(self._new_batch(creation))

    async def trigger_batch(self, chunk: BatchChunk) -> ChunkTaken | Stale | Refused:
        return await self._apart(self._batch(chunk))

    async def abort_batch(self, batch_id: BatchId, reason: str) -> None:
        await self._apart(self._abort(batch_id, reason))

    async def read_journal(self, holder: Holder) -> list[JournalEntry] | Stale:
        """Return the whole journal of a run's present attempt."""
        entries: list[JournalEntry] = []
        while True:
            after = entries[-1].number if entries else 0
            page = await self._context.run(self._journals, JournalRead(holder=holder, after=after))
            if isinstance(page, Stale):
                return page
            entries += page
            if len(page) < _PAGE:
                return entries

    async def read_batch_results(self, batch_id: BatchId) -> list[RunOutcome]:
        """Return the outcomes of a finished batch in the order of its items."""
        outcomes: list[RunOutcome] = []
        while True:
            page = await self._apart(self._results(batch_id, after=len(outcomes) - 1, limit=_PAGE))
            outcomes += page
            if len(page) < _PAGE:
                return outcomes


def _weigh_step(step: StepRecord) -> int:
    return len(step.output or "") + len(step.error or "")


def _weigh_update(update: MetadataUpdate) -> int:
    return sum(len(str(placed.operation.value)) for placed in update.operations)


def _weigh(child: ChildRequest) -> int:
    return len(child.request.payload or "") + len(child.request.metadata or "")
