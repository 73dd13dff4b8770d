"""`batch`: runs of several tasks in one batch; and batches as they stand."""

from __future__ import annotations

from collections.abc import AsyncIterable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from detent.errors import NotFoundError
from detent.protocol import ids
from detent.protocol.ids import BatchId
from detent.sdk.blocking import blocking
from detent.sdk.handles import BatchHandle, BatchResult
from detent.sdk.options import ChildOptions, TriggerOptions
from detent.sdk.target import HERE, Target
from detent.sdk.triggering import Building, Item

if TYPE_CHECKING:
    from detent.protocol.batches import BatchRecord

Out = TypeVar("Out")


class Batch:
    """Batches of items of any tasks, and reading batches of any kind."""

    label = "batch"

    def __init__(self, target: Target = HERE) -> None:
        self._target = target
        self.sync = BatchSync(self)

    def trigger(
        self, items: Iterable[Item[object, Out]] | AsyncIterable[Item[object, Out]], **options: Unpack[TriggerOptions]
    ) -> Coroutine[Any, Any, BatchHandle[Out]]:
        """Start a run for each item. *options* hold for every item that does not say otherwise.

        Example::

            await batch.trigger([charge.item(order), tasks.item("notify", {"user": 7}, delay="1m")])

        Raises `BatchTriggerError` when the batch could not be given whole.
        """
        return Building[Out].of(items, options, whole=None, target=self._target).start()

    def trigger_and_wait(
        self, items: Iterable[Item[object, Out]] | AsyncIterable[Item[object, Out]], **options: Unpack[ChildOptions]
    ) -> Coroutine[Any, Any, BatchResult[Out]]:
        """Start a child run for each item and wait, durably, until all have ended. Only inside a run."""
        present = self._target.run("batch.trigger_and_wait")
        return Building[Out].of(items, options, whole=None, target=self._target, parent=present).run(present)

    async def retrieve(self, batch: BatchHandle[Any] | str) -> BatchRecord:
        """Return a batch as it stands: its status, its runs, how many of them ended how, and items that failed at the start.

        Example::

            record = await batch.retrieve(handle.id)
            print(record.status, record.succeeded, "of", record.run_count)

        Raises `NotFoundError` for an id that no batch has, `ValueError` for no id at all.
        """
        batch_id = _id_of(batch)
        (record,) = await self._target.connection().backend.retrieve_batches([batch_id])
        if record is None:
            raise NotFoundError(f"there is no batch {batch_id} in this environment", code="batch_not_found")
        return record


class BatchSync:
    """`batch` as blocking calls."""

    def __init__(self, batch: Batch) -> None:
        self.trigger = blocking(batch.trigger)
        self.trigger_and_wait = blocking(batch.trigger_and_wait)
        self.retrieve = blocking(batch.retrieve)


def _id_of(batch: object) -> BatchId:
    if isinstance(batch, BatchHandle):
        return batch.id
    if not isinstance(batch, str):
        raise TypeError(f"a batch is named by its id or its handle, not by {batch!r}")
    ids.decode("batch", batch)
    return BatchId(batch)


batch = Batch()
