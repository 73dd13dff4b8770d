"""`tasks`: triggering by id, with no import of the task's code."""

from __future__ import annotations

from collections.abc import AsyncIterable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from detent.duration import Duration
from detent.protocol.codec import JsonValue
from detent.sdk import schema
from detent.sdk.blocking import blocking
from detent.sdk.calls import ChildCall
from detent.sdk.handles import BatchHandle, BatchResult, RunHandle
from detent.sdk.hooks import GlobalHooks
from detent.sdk.options import ChildOptions, TriggerOptions, check_text
from detent.sdk.ref import RefValues, TaskRef
from detent.sdk.target import HERE, Target
from detent.sdk.triggering import Item

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from detent.sdk.runs import Run

In = TypeVar("In")
Out = TypeVar("Out")

LONGEST_ID = 128


class Tasks:
    """Tasks by id: payloads are anything that can become JSON, outputs are plain JSON values.

    The engine checks the payload against the JSON Schema that the task's current version registered.
    """

    label = "tasks"

    def __init__(self, target: Target = HERE) -> None:
        self._target = target
        self.sync = TasksSync(self)

    def trigger(
        self, task_id: str, payload: object = None, *, connection: object = None, **options: Unpack[TriggerOptions]
    ) -> Coroutine[Any, Any, RunHandle[JsonValue]]:
        """Start a run of a task and return its handle. With a *connection*, as part of the transaction that is open on it.

        Example::

            handle = await tasks.trigger("charge", {"id": "o1", "amount": 5})
        """
        return self._plain(task_id).trigger(payload, connection=connection, **options)

    def trigger_and_wait(
        self, task_id: str, payload: object = None, **options: Unpack[ChildOptions]
    ) -> ChildCall[JsonValue]:
        """Start a child run and wait for its end, durably. Only inside a run: else `OutsideRunError`."""
        return self._plain(task_id).trigger_and_wait(payload, **options)

    def call(
        self, task_id: str, payload: object = None, **options: Unpack[ChildOptions]
    ) -> Coroutine[Any, Any, JsonValue]:
        """Short for `trigger_and_wait(...).unwrap()`."""
        return self._plain(task_id).call(payload, **options)

    def trigger_and_poll(
        self,
        task_id: str,
        payload: object = None,
        *,
        timeout: Duration | None = None,
        **options: Unpack[TriggerOptions],
    ) -> Coroutine[Any, Any, Run[JsonValue]]:
        """Start a run and return it when it has ended, from outside a run. Raises `TimeoutError` after *timeout*."""
        return self._plain(task_id).trigger_and_poll(payload, timeout=timeout, **options)

    def batch_trigger(
        self, task_id: str, items: Iterable[object] | AsyncIterable[object], **options: Unpack[TriggerOptions]
    ) -> Coroutine[Any, Any, BatchHandle[JsonValue]]:
        """Start a run of one task for each item: payloads, or `tasks.item(task_id, payload, ...)`."""
        return self._plain(task_id).batch_trigger(items, **options)

    def batch_trigger_and_wait(
        self, task_id: str, items: Iterable[object] | AsyncIterable[object], **options: Unpack[ChildOptions]
    ) -> Coroutine[Any, Any, BatchResult[JsonValue]]:
        """Start a child run of one task for each item and wait, durably, until all have ended. Only inside a run."""
        return self._plain(task_id).batch_trigger_and_wait(items, **options)

    def item(self, task_id: str, payload: object = None, **options: Unpack[TriggerOptions]) -> Item[object, JsonValue]:
        """Return an item for a batch, with options of its own."""
        return self._plain(task_id).item(payload, **options)

    @overload
    def ref(
        self, task_id: str, *, payload: type[In] | TypeAdapter[In], output: type[Out] | TypeAdapter[Out]
    ) -> TaskRef[In, Out]: ...
    @overload
    def ref(self, task_id: str, *, payload: type[In] | TypeAdapter[In]) -> TaskRef[In, JsonValue]: ...
    @overload
    def ref(self, task_id: str, *, output: type[Out] | TypeAdapter[Out]) -> TaskRef[object, Out]: ...
    @overload
    def ref(self, task_id: str) -> TaskRef[object, JsonValue]: ...
    def ref(self, task_id: str, *, payload: object = None, output: object = None) -> object:
        """Return a task by id with the types of its payload and output: classes, or `TypeAdapter`s for other types.

        Example::

            charge = tasks.ref("charge", payload=Order, output=Receipt)
            handle = await charge.trigger(Order(id="o1", amount=5))
        """
        check_text("a task id", task_id, longest=LONGEST_ID)
        values = RefValues(
            task_id,
            schema.PLAIN if payload is None else schema.of(payload, what=f'payload= of tasks.ref("{task_id}")'),
            schema.PLAIN if output is None else schema.of(output, what=f'output= of tasks.ref("{task_id}")'),
        )
        return TaskRef[object, object](task_id, values, self._target)

    def _plain(self, task_id: str) -> TaskRef[object, JsonValue]:
        check_text("a task id", task_id, longest=LONGEST_ID)
        return TaskRef(task_id, RefValues(task_id), self._target)


class TasksSync:
    """`tasks` as blocking calls."""

    def __init__(self, tasks: Tasks) -> None:
        self.trigger = blocking(tasks.trigger)
        self.trigger_and_wait = blocking(tasks.trigger_and_wait)
        self.call = blocking(tasks.call)
        self.trigger_and_poll = blocking(tasks.trigger_and_poll)
        self.batch_trigger = blocking(tasks.batch_trigger)
        self.batch_trigger_and_wait = blocking(tasks.batch_trigger_and_wait)
        self.item = tasks.item
        self.ref = tasks.ref


class ProjectTasks(Tasks, GlobalHooks):
    """`tasks` as a project's code sees it: also the decorators of hooks for all of its tasks.

    Example::

        @tasks.on_failure
        async def alert(ctx: Context, error: BaseException) -> None: ...
    """


tasks = ProjectTasks()
