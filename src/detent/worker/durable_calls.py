"""The durable operations of all runs of a process: gathered into few calls, asked until the database answers."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TypeVar

from detent.protocol.backend import WorkerBackend
from detent.protocol.coalesce import Coalescer
from detent.protocol.ids import BatchId
from detent.protocol.models import (
    BatchChunk,
    ChildRequest,
    ChildTriggered,
    ChunkTaken,
    Holder,
    JournalEntry,
    JournalRead,
    Pending,
    Refused,
    RunOutcome,
    Stale,
    Suspended,
    Wait,
    WaitResult,
)
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
        self._batch = persistently(backend.trigger_batch)
        self._abort = persistently(backend.abort_batch)
        self._journal = persistently(backend.read_journals)
        self._results = persistently(backend.read_batch_results)
        # What is shared between runs must not run in the context of the one that asked first.
        self._context = contextvars.Context()

    def trigger_child(self, request: ChildRequest) -> asyncio.Future[ChildTriggered | Stale | Refused]:
        return self._context.run(self._children, request)

    def wait_for(self, wait: Wait) -> asyncio.Future[WaitResult | Pending | Suspended | Refused | Stale]:
        return self._context.run(self._waits, wait)

    async def trigger_batch(self, chunk: BatchChunk) -> ChunkTaken | Stale | Refused:
        return await self._batch(chunk)

    async def abort_batch(self, batch_id: BatchId, reason: str) -> None:
        await self._abort(batch_id, reason)

    async def read_journal(self, holder: Holder) -> list[JournalEntry] | Stale:
        """Return the whole journal of a run's present attempt."""
        entries: list[JournalEntry] = []
        while True:
            after = entries[-1].number if entries else 0
            (page,) = await self._journal([JournalRead(holder=holder, after=after)], limit=_PAGE)
            if isinstance(page, Stale):
                return page
            entries += page
            if len(page) < _PAGE:
                return entries

    async def read_batch_results(self, batch_id: BatchId) -> list[RunOutcome]:
        """Return the outcomes of a finished batch in the order of its items."""
        outcomes: list[RunOutcome] = []
        while True:
            page = await self._results(batch_id, after=len(outcomes) - 1, limit=_PAGE)
            outcomes += page
            if len(page) < _PAGE:
                return outcomes


def _weigh(child: ChildRequest) -> int:
    return len(child.request.payload or "") + len(child.request.metadata or "")
