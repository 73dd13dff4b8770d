"""`batch`: runs of several tasks in one batch."""

from __future__ import annotations

from collections.abc import AsyncIterable, Coroutine, Iterable
from typing import Any, TypeVar, Unpack

from detent.sdk.blocking import blocking
from detent.sdk.handles import BatchHandle, BatchResult
from detent.sdk.options import ChildOptions, TriggerOptions
from detent.sdk.target import HERE, Target
from detent.sdk.triggering import Building, Item

Out = TypeVar("Out")


class Batch:
    """Batches of items of any tasks."""

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


class BatchSync:
    """`batch` as blocking calls."""

    def __init__(self, batch: Batch) -> None:
        self.trigger = blocking(batch.trigger)
        self.trigger_and_wait = blocking(batch.trigger_and_wait)


batch = Batch()
