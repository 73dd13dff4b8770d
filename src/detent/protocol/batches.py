"""Batches: made, given their items, and read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from detent.protocol.ids import BatchId, RunId
from detent.protocol.items import ItemIds
from detent.protocol.run_error import RunError
from detent.protocol.status import BatchStatus

if TYPE_CHECKING:
    from detent.protocol.idempotency import Idempotency
    from detent.protocol.operations import Origin
    from detent.protocol.triggering import Triggered, TriggerRequest
    from detent.protocol.waits import Pending, Suspended, WaitResult


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCreation:
    """A batch to make before its items. The caller makes `batch_id`, so that a repeat after a lost reply does not double.

    `count`: of its items; None: the chunk that comes last tells it. With a live `key` it is the batch that the key stands for,
    unless that was aborted. With an origin that waits, the run waits from now on; such a batch has no key, for its items' own
    keys give the same runs.
    """

    batch_id: BatchId
    count: int | None = None
    key: Idempotency | None = None
    origin: Origin | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise ValueError(f"a batch that is made before its items has at least one, not {self.count}")
        if self.key is not None and self.origin is not None and self.origin.wait:
            raise ValueError("a batch that is waited for has no key; give its items keys of their own")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCreated:
    """The batch that stands for the request: a new one, or with `is_cached` the one its key already had.

    `count` is None while it is not known. `is_sealed`: all items were given before.
    """

    batch_id: BatchId
    count: int | None
    is_cached: bool = False
    is_sealed: bool = False
    wait: Pending | Suspended | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchChunk:
    """Some items of a batch, by index; the first chunk to arrive makes the batch, unless `create_batch` has.

    Chunks may come in any order, and again: items are de-duplicated by index. Once `total`, told by a chunk or at the creation,
    is reached, the batch is sealed. With an origin that waits, the chunk that tells the total suspends the run until every
    item is final.
    """

    batch_id: BatchId
    items: tuple[tuple[int, TriggerRequest], ...]
    total: int | None = None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkTaken:
    """One answer an item, in the order given, and how the batch stands.

    `accepted` of these items were new, `deduplicated` known by their index; a sealed batch takes none. `enqueued` of
    `expected` items are there by now. `wait`: how the origin's wait stands, once the batch is sealed. An item that could not be
    triggered is answered like the others: its run has failed.
    """

    items: tuple[Triggered, ...]
    accepted: int
    deduplicated: int
    enqueued: int
    expected: int | None
    is_sealed: bool
    wait: WaitResult | Pending | Suspended | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItemError:
    """An item that could not be triggered. Its run, which has failed, stands at its place all the same."""

    index: int
    task_id: str
    run_id: RunId
    error: RunError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchRecord:
    """A batch as it was when it was read."""

    id: BatchId
    status: BatchStatus
    run_count: int
    """Of the items that it will have, where that is known; else of those that were given."""
    run_ids: ItemIds
    """In the order of the items that were given, made when they are asked for."""
    succeeded: int
    failed: int
    """Runs that failed, crashed, timed out, expired or could not be triggered."""
    cancelled: int
    refused: int
    """Items that could not be triggered; of `failed`."""
    errors: tuple[BatchItemError, ...]
    """The first hundred of them."""
    reason: str
    """Why it was aborted."""
    idempotency_key: str | None
    created_at: datetime
    sealed_at: datetime | None
    """When the last item was given."""
    completed_at: datetime | None
    """When the last run ended."""
