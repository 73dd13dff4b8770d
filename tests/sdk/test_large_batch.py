"""Many items: what is kept of them while they are given, and after."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import pytest

from detent.protocol.batches import BatchChunk, ChunkTaken
from detent.protocol.ids import BatchId, item_run_id, new_batch_id
from detent.protocol.triggering import Triggered
from detent.sdk.chunks import HEAVIEST, MOST_ITEMS, Giver, Sending, in_chunks
from detent.sdk.handles import ItemHandles
from detent.sdk.tasks import tasks
from detent.sdk.triggering import Building

MANY = 25_000
MEGABYTE = 1024 * 1024


class Counter(Giver):
    """Takes items, and keeps none."""

    def __init__(self) -> None:
        self.taken = self.largest = 0

    async def trigger_batch(self, chunk: BatchChunk) -> ChunkTaken:
        self.taken += len(chunk.items)
        self.largest = max(self.largest, len(chunk.items))
        await asyncio.sleep(0)
        return ChunkTaken(
            items=tuple(Triggered(run_id=request.run_id) for _, request in chunk.items),
            accepted=len(chunk.items),
            deduplicated=0,
            enqueued=self.taken,
            expected=chunk.total,
            is_sealed=chunk.total is not None,
        )

    async def abort_batch(self, batch_id: BatchId, reason: str) -> None:
        raise AssertionError(reason)


@contextmanager
def at_most(megabytes: float) -> Iterator[None]:
    """Fail when more memory than this was in use at any moment."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < megabytes * MEGABYTE, f"{peak / MEGABYTE:.1f} MB"


async def _numbers() -> AsyncIterator[int]:
    for number in range(MANY):
        yield number


async def give(items: object, giver: Counter, batch_id: BatchId) -> ItemHandles[str]:
    ref = tasks.ref("charge", payload=int, output=str)
    building = Building[str].of(items, {}, whole=ref, target=ref._target)  # type: ignore[arg-type]
    given = await Sending(giver, batch_id).carry_out(building.requests)
    return ItemHandles(given.run_ids, lambda index: ref)


@pytest.mark.parametrize("make", [lambda: iter(range(MANY)), _numbers])
async def test_a_stream_of_items_is_given_in_bounded_memory(make: Callable[[], object]) -> None:
    giver, batch_id = Counter(), new_batch_id()
    await give([0], Counter(), new_batch_id())  # what is loaded at first is not for the items
    with at_most(2):
        handles = await give(make(), giver, batch_id)
        assert len(handles) == MANY
        assert handles[-1].id == item_run_id(batch_id, MANY - 1)
    assert (giver.taken, giver.largest) == (MANY, MOST_ITEMS)


async def test_heavy_items_go_out_in_smaller_chunks() -> None:
    ref = tasks.ref("charge", payload=str, output=str)
    heavy = "x" * (HEAVIEST // 3)
    building = Building[str].of(iter([heavy] * 7), {}, whole=ref, target=ref._target)
    assert [len(chunk) async for chunk in in_chunks(new_batch_id(), building.requests)] == [2, 2, 2, 1]
