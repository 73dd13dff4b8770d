"""Giving a batch to a backend piece by piece, in bounded memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from detent.errors import (
    ApiConnectionError,
    BatchTriggerError,
    NonDeterminismError,
    RateLimitError,
    RunCancelledError,
    StaleRunError,
)
from detent.protocol.batches import BatchChunk, ChunkTaken
from detent.protocol.fence import Stale
from detent.protocol.ids import BatchId, RunId, item_run_id
from detent.protocol.items import ItemIds
from detent.protocol.refusal import Refused, to_error
from detent.protocol.triggering import TriggerRequest

MOST_ITEMS = 500
HEAVIEST = 4 * 1024 * 1024
_IN_FLIGHT = 2

Requests: TypeAlias = Iterable[TriggerRequest] | AsyncIterable[TriggerRequest]
Chunk: TypeAlias = tuple[tuple[int, TriggerRequest], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenBatch:
    """A batch that was given whole. `cached`: the items that an older run stands for; the ids of all others follow from its own.

    With `is_cached` its key gave a batch that was there before.
    """

    batch_id: BatchId
    count: int
    cached: Mapping[int, RunId] = field(default_factory=dict)
    is_cached: bool = False

    @property
    def run_ids(self) -> ItemIds:
        return ItemIds(self.batch_id, [range(self.count)], self.cached)


async def in_chunks(batch_id: BatchId, requests: Requests) -> AsyncIterator[Chunk]:
    """Yield numbered requests, at most 500 or 4 MB of them at a time. Their run ids follow from the batch's id."""
    taken: list[tuple[int, TriggerRequest]] = []
    weight = 0
    async for index, request in _numbered(requests):
        heavier = len(request.payload or "")
        if taken and (len(taken) == MOST_ITEMS or weight + heavier > HEAVIEST):
            yield tuple(taken)
            taken, weight = [], 0
        taken.append((index, replace(request, run_id=item_run_id(batch_id, index))))
        weight += heavier
    if taken:
        yield tuple(taken)


async def _numbered(requests: Requests) -> AsyncIterator[tuple[int, TriggerRequest]]:
    if isinstance(requests, AsyncIterable):
        index = 0
        async for request in requests:
            yield index, request
            index += 1
    else:
        for pair in enumerate(requests):
            yield pair


class Giver(Protocol):
    """The part of a backend that a batch needs."""

    async def trigger_batch(self, chunk: BatchChunk) -> ChunkTaken | Stale | Refused: ...

    async def abort_batch(self, batch_id: BatchId, reason: str) -> None: ...


class Sending:
    """One batch on its way. Two chunks are out at once; the last, which seals the batch, goes when the others have arrived."""

    def __init__(self, backend: Giver, batch_id: BatchId) -> None:
        self._backend, self._batch_id = backend, batch_id
        self._made = 0
        self._total = 0
        self._cached: dict[int, RunId] = {}
        self._out: deque[asyncio.Task[None]] = deque()
        self._is_begun = False

    async def carry_out(self, requests: Requests) -> GivenBatch:
        """Give all items. Raises `BatchTriggerError` after aborting what was begun."""
        try:
            await self._send_all(requests)
        except asyncio.CancelledError:
            await self._abort("the caller was cancelled")
            raise
        except (NonDeterminismError, RunCancelledError, StaleRunError) as error:
            await self._abort(str(error))
            raise
        except Exception as error:  # a user's iterable may raise anything: the batch ends, the error goes on
            await self._abort(str(error))
            raise self._failure(error) from error
        return GivenBatch(batch_id=self._batch_id, count=self._total, cached=self._cached)

    async def _send_all(self, requests: Requests) -> None:
        held: Chunk = ()
        total = 0
        try:
            async for chunk in in_chunks(self._batch_id, requests):
                if held:
                    await self._send(held)
                held, total = chunk, total + len(chunk)
            await self._arrive(at_most=0)
            if held:
                await self._give(BatchChunk(batch_id=self._batch_id, items=held, total=total))
        finally:
            if self._out:
                await asyncio.wait(self._out)

    async def _send(self, chunk: Chunk) -> None:
        await self._arrive(at_most=_IN_FLIGHT - 1)
        self._out.append(asyncio.create_task(self._give(BatchChunk(batch_id=self._batch_id, items=chunk))))

    async def _arrive(self, *, at_most: int) -> None:
        while len(self._out) > at_most:
            await self._out.popleft()

    async def _give(self, chunk: BatchChunk) -> None:
        self._is_begun = True
        taken = await self._backend.trigger_batch(chunk)
        if isinstance(taken, Stale):
            raise StaleRunError(taken.run_id)
        if isinstance(taken, Refused):
            raise to_error(taken)
        self._made += len(chunk.items)
        # A key may have given a batch that was sealed with another number of items.
        self._total = taken.expected or self._total
        for (index, _), answer in zip(chunk.items, taken.items, strict=True):
            if answer.is_cached:
                self._cached[index] = answer.run_id

    async def _abort(self, reason: str) -> None:
        if self._is_begun:
            # Where the database is away, what the batch failed with is told rather than that it could not be aborted.
            with contextlib.suppress(ApiConnectionError):
                await self._backend.abort_batch(self._batch_id, reason)

    def _failure(self, error: Exception) -> BatchTriggerError:
        return BatchTriggerError(
            "items" if self._made else "create",
            self._batch_id,
            self._made,
            str(error),
            is_rate_limited=isinstance(error, RateLimitError),
        )
