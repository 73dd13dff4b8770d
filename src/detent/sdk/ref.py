"""Triggering a task of which the id is known: with its code at hand (`Task`), or without it (`tasks.ref`)."""

from __future__ import annotations

from collections.abc import AsyncIterable, Coroutine, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

from detent.duration import Duration
from detent.errors import SerializationError, TaskPayloadParsedError
from detent.sdk import schema
from detent.sdk.blocking import blocking
from detent.sdk.calls import ChildCall
from detent.sdk.handles import BatchHandle, BatchResult, RunHandle
from detent.sdk.options import ChildOptions, TriggerOptions, check_names
from detent.sdk.schema import Schema
from detent.sdk.target import Target
from detent.sdk.triggering import Item, Triggerable

if TYPE_CHECKING:
    from detent.sdk.runs import Run, Runs

In = TypeVar("In")
Out = TypeVar("Out")


def _runs(target: Target) -> Runs:
    # Few tasks are polled: they alone pay for the reading of runs.
    from detent.sdk.runs import Runs

    return Runs(target)


class RefValues:
    """How the values of a task become JSON when only its id is known. The engine checks the payload once more."""

    is_validating = False

    def __init__(self, task_id: str, payload: Schema = schema.PLAIN, output: Schema = schema.PLAIN) -> None:
        self._task_id, self._payload, self._output = task_id, payload, output

    def encode_payload(self, value: object) -> str | None:
        if value is None and self._payload is schema.PLAIN:
            return None
        try:
            return self._payload.encode(value, what=f'the payload of task "{self._task_id}"')
        except schema.MismatchError as error:
            raise TaskPayloadParsedError(self._task_id, str(error), error.details) from error

    def decode_output(self, text: str | None) -> object:
        if text is None:
            return None
        try:
            return self._output.decode(text)
        except schema.MismatchError as error:
            what = f'the stored output of task "{self._task_id}"'
            raise SerializationError(what, f"it does not fit the given type: {error}") from error


class TaskRef(Triggerable[Out], Generic[In, Out]):
    """A task that takes a payload, as something to trigger. `sync` has the same methods as blocking calls.

    Every method refuses what is wrong at the call: `TypeError` for an unknown option, `ValueError` for a bad one,
    `TaskPayloadParsedError` for a payload that does not fit, `PayloadError` for one that is no JSON or over 10 MB.
    """

    def trigger(
        self, payload: In, *, connection: object = None, **options: Unpack[TriggerOptions]
    ) -> Coroutine[Any, Any, RunHandle[Out]]:
        """Start a run and return its handle at once. With a *connection*, as part of the transaction that is open on it.

        Example::

            handle = await charge.trigger(Order(id="o1", amount=5), delay="1h", tags=["user:7"])

        Raises `ApiConnectionError` when the database is out of reach.
        """
        return self._start(self._request(payload, options), connection)

    def trigger_and_wait(self, payload: In, **options: Unpack[ChildOptions]) -> ChildCall[Out]:
        """Start a child run and wait for its end, durably. Only inside a run: else `OutsideRunError`.

        Example::

            result = await charge.trigger_and_wait(order)
            if result.ok:
                result.output
        """
        return self._child(payload, options)

    def call(self, payload: In, **options: Unpack[ChildOptions]) -> Coroutine[Any, Any, Out]:
        """Short for `trigger_and_wait(...).unwrap()`: return the child's output or raise `SubtaskUnwrapError`."""
        return self._child(payload, options).unwrap()

    def trigger_and_poll(
        self, payload: In, *, timeout: Duration | None = None, **options: Unpack[TriggerOptions]
    ) -> Coroutine[Any, Any, Run[Out]]:
        """Start a run and return it when it has ended, from outside a run. Raises `TimeoutError` after *timeout*.

        Example::

            run = await charge.trigger_and_poll(order, timeout="1m")
        """
        return _runs(self._target)._follow(self, self._request(payload, options, is_watched=True), timeout)

    def item(self, payload: In, **options: Unpack[TriggerOptions]) -> Item[In, Out]:
        """Return an item for a batch, with options of its own."""
        check_names(options)
        return Item(self, payload, options)

    def batch_trigger(
        self, items: Iterable[In | Item[In, Out]] | AsyncIterable[In | Item[In, Out]], **options: Unpack[TriggerOptions]
    ) -> Coroutine[Any, Any, BatchHandle[Out]]:
        """Start a run for each item. *options* hold for every item that does not say otherwise.

        Example::

            await charge.batch_trigger([o1, o2, charge.item(o3, delay="5m")])

        What has a length is checked whole before the first run is made; other iterables are streamed. Raises
        `BatchTriggerError` when the batch could not be given whole: then it is aborted, and what was made goes on.
        """
        return self._start_batch(items, options)

    def batch_trigger_and_wait(
        self, items: Iterable[In | Item[In, Out]] | AsyncIterable[In | Item[In, Out]], **options: Unpack[ChildOptions]
    ) -> Coroutine[Any, Any, BatchResult[Out]]:
        """Start a child run for each item and wait, durably, until all have ended. Only inside a run.

        Example::

            done = await charge.batch_trigger_and_wait([o1, o2])
            for run in done.runs: ...
        """
        return self._run_batch(items, options)

    @cached_property
    def sync(self) -> TaskRefSync[In, Out]:
        """The same methods as blocking calls."""
        return TaskRefSync(self)


class BareTaskRef(Triggerable[Out], Generic[Out]):
    """A task that takes no payload, as something to trigger. The methods are those of `TaskRef`, without the payload."""

    def trigger(
        self, *, connection: object = None, **options: Unpack[TriggerOptions]
    ) -> Coroutine[Any, Any, RunHandle[Out]]:
        """Start a run and return its handle at once. With a *connection*, as part of the transaction that is open on it."""
        return self._start(self._request(None, options), connection)

    def trigger_and_wait(self, **options: Unpack[ChildOptions]) -> ChildCall[Out]:
        """Start a child run and wait for its end, durably. Only inside a run: else `OutsideRunError`."""
        return self._child(None, options)

    def call(self, **options: Unpack[ChildOptions]) -> Coroutine[Any, Any, Out]:
        """Short for `trigger_and_wait(...).unwrap()`."""
        return self._child(None, options).unwrap()

    def trigger_and_poll(
        self, *, timeout: Duration | None = None, **options: Unpack[TriggerOptions]
    ) -> Coroutine[Any, Any, Run[Out]]:
        """Start a run and return it when it has ended, from outside a run. Raises `TimeoutError` after *timeout*."""
        return _runs(self._target)._follow(self, self._request(None, options, is_watched=True), timeout)

    def item(self, **options: Unpack[TriggerOptions]) -> Item[None, Out]:
        """Return an item for a batch, with options of its own."""
        check_names(options)
        return Item(self, None, options)

    def batch_trigger(
        self, items: Iterable[Item[None, Out]] | AsyncIterable[Item[None, Out]], **options: Unpack[TriggerOptions]
    ) -> Coroutine[Any, Any, BatchHandle[Out]]:
        """Start a run for each item: `await tick.batch_trigger([tick.item(delay="1m"), tick.item(delay="2m")])`."""
        return self._start_batch(items, options)

    def batch_trigger_and_wait(
        self, items: Iterable[Item[None, Out]] | AsyncIterable[Item[None, Out]], **options: Unpack[ChildOptions]
    ) -> Coroutine[Any, Any, BatchResult[Out]]:
        """Start a child run for each item and wait, durably, until all have ended. Only inside a run."""
        return self._run_batch(items, options)

    @cached_property
    def sync(self) -> BareTaskRefSync[Out]:
        """The same methods as blocking calls."""
        return BareTaskRefSync(self)


class TaskRefSync(Generic[In, Out]):
    """`TaskRef` as blocking calls, for code without an event loop and for tasks written as plain `def`."""

    def __init__(self, task: TaskRef[In, Out]) -> None:
        self.trigger = blocking(task.trigger)
        self.trigger_and_wait = blocking(task.trigger_and_wait)
        self.call = blocking(task.call)
        self.trigger_and_poll = blocking(task.trigger_and_poll)
        self.batch_trigger = blocking(task.batch_trigger)
        self.batch_trigger_and_wait = blocking(task.batch_trigger_and_wait)
        self.item = task.item


class BareTaskRefSync(Generic[Out]):
    """`BareTaskRef` as blocking calls."""

    def __init__(self, task: BareTaskRef[Out]) -> None:
        self.trigger = blocking(task.trigger)
        self.trigger_and_wait = blocking(task.trigger_and_wait)
        self.call = blocking(task.call)
        self.trigger_and_poll = blocking(task.trigger_and_poll)
        self.batch_trigger = blocking(task.batch_trigger)
        self.batch_trigger_and_wait = blocking(task.batch_trigger_and_wait)
        self.item = task.item
