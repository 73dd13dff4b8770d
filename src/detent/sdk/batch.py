"""`batch`: runs of several tasks in one batch; and batches as they stand."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from detent.duration import Duration, seconds
from detent.errors import NotFoundError
from detent.protocol import codec, ids
from detent.protocol.codec import JsonValue
from detent.protocol.ids import BatchId, RunId
from detent.sdk.blocking import blocking
from detent.sdk.handles import BatchHandle, BatchResult
from detent.sdk.options import ChildOptions, TriggerOptions
from detent.sdk.result import of_outcome
from detent.sdk.target import HERE, Target
from detent.sdk.triggering import Building, Item

if TYPE_CHECKING:
    from detent.protocol.batches import BatchRecord

Out = TypeVar("Out")

PAGE = 500


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


    @overload
    def results(self, batch: BatchHandle[Out]) -> Coroutine[Any, Any, BatchResult[Out]]: ...
    @overload
    def results(self, batch: str) -> Coroutine[Any, Any, BatchResult[JsonValue]]: ...
    def results(self, batch: object) -> Coroutine[Any, Any, BatchResult[Any]]:
        """Return how those runs of a batch ended that have ended by now, in the order of its items.

        Example::

            done = await batch.results(handle)
            print(len(done.runs), "of", handle.run_count)

        A handle gives outputs as the return types of its tasks. Raises `NotFoundError` for an id that no batch has.
        """
        return self._results(batch)

    @overload
    def poll(
        self, batch: BatchHandle[Out], *, timeout: Duration | None = None
    ) -> Coroutine[Any, Any, BatchResult[Out]]: ...
    @overload
    def poll(
        self, batch: str, *, timeout: Duration | None = None
    ) -> Coroutine[Any, Any, BatchResult[JsonValue]]: ...
    def poll(self, batch: object, *, timeout: Duration | None = None) -> Coroutine[Any, Any, BatchResult[Any]]:
        """Return the results of a batch when all runs that were given by now have ended. Raises `TimeoutError`; default: never.

        Not durable: inside a run use `trigger_and_wait`.
        """
        return self._poll(batch, None if timeout is None else seconds(timeout))

    async def _results(self, batch: object) -> BatchResult[Any]:
        return await self._read(await self._runs_of(batch))

    async def _poll(self, batch: object, timeout: float | None) -> BatchResult[Any]:
        import asyncio

        async with asyncio.timeout(timeout):
            runs = await self._runs_of(batch)
            watch = self._target.connection().watch
            for page in runs.pages():
                ends = [watch.expect(run_id) for run_id in page]
                try:
                    await watch.look(page)
                    await asyncio.gather(*ends)
                finally:
                    for end in ends:
                        end.cancel()
            return await self._read(runs)

    async def _runs_of(self, batch: object) -> _Runs:
        if isinstance(batch, BatchHandle):
            handles = batch.runs
            return _Runs(batch.id, [run.id for run in handles], lambda index: handles[index].decode)
        record = await self.retrieve(_id_of(batch))
        return _Runs(record.id, record.run_ids, lambda _: _plain)

    async def _read(self, runs: _Runs) -> BatchResult[Any]:
        backend = self._target.connection().backend
        outcomes = [outcome for page in runs.pages() for outcome in await backend.read_outcomes(page)]
        results = [
            of_outcome(outcome, runs.decoder_at(index)) for index, outcome in enumerate(outcomes) if outcome is not None
        ]
        return BatchResult(runs.batch_id, tuple(results))


@dataclass(frozen=True, slots=True)
class _Runs:
    """The runs of a batch in the order of its items, and what makes the output of each."""

    batch_id: BatchId
    ids: Sequence[RunId]
    decoder_at: Callable[[int], Callable[[str | None], Any]]

    def pages(self) -> Iterator[Sequence[RunId]]:
        return (self.ids[first : first + PAGE] for first in range(0, len(self.ids), PAGE))


class BatchSync:
    """`batch` as blocking calls."""

    def __init__(self, batch: Batch) -> None:
        self.trigger = blocking(batch.trigger)
        self.trigger_and_wait = blocking(batch.trigger_and_wait)
        self.retrieve = blocking(batch.retrieve)
        self._batch = batch

    @overload
    def results(self, batch: BatchHandle[Out]) -> BatchResult[Out]: ...
    @overload
    def results(self, batch: str) -> BatchResult[JsonValue]: ...
    def results(self, batch: BatchHandle[Any] | str) -> BatchResult[Any]:
        """`batch.results` as a blocking call."""
        return blocking(self._batch.results)(batch)

    @overload
    def poll(self, batch: BatchHandle[Out], *, timeout: Duration | None = None) -> BatchResult[Out]: ...
    @overload
    def poll(self, batch: str, *, timeout: Duration | None = None) -> BatchResult[JsonValue]: ...
    def poll(self, batch: BatchHandle[Any] | str, *, timeout: Duration | None = None) -> BatchResult[Any]:
        """`batch.poll` as a blocking call."""
        return blocking(self._batch.poll)(batch, timeout=timeout)


def _plain(text: str | None) -> JsonValue:
    return None if text is None else codec.decode(text)


def _id_of(batch: object) -> BatchId:
    if isinstance(batch, BatchHandle):
        return batch.id
    if not isinstance(batch, str):
        raise TypeError(f"a batch is named by its id or its handle, not by {batch!r}")
    ids.decode("batch", batch)
    return BatchId(batch)


batch = Batch()
