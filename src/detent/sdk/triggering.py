"""From a payload and options to a run: what every kind of task, held or known by id, has in common."""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sized,
)
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar, cast

from detent.protocol.ids import RunId, new_batch_id, new_run_id
from detent.sdk import idempotency
from detent.sdk.blocking import is_on_loop
from detent.sdk.calls import ChildCall
from detent.sdk.handles import BatchHandle, BatchResult, ItemHandles, RunHandle
from detent.sdk.options import check_child, default_version, to_fields
from detent.sdk.result import Result, of_outcome
from detent.sdk.target import HERE, Target

if TYPE_CHECKING:
    from detent.protocol.idempotency import Idempotency
    from detent.protocol.runs import RunOutcome
    from detent.protocol.triggering import TriggerRequest
    from detent.sdk.chunks import Requests
    from detent.sdk.scope import RunScope

Out = TypeVar("Out")
In_co = TypeVar("In_co", covariant=True)
Out_co = TypeVar("Out_co", covariant=True)

Options: TypeAlias = Mapping[str, object]

_NONE: Options = {}
_KEY_OPTIONS = ("idempotency_key", "idempotency_key_ttl")
NUMBERED = RunId("numbered")
"""Stands for the id of a batch's item, which follows from the batch's id: `Sending` gives it."""


class Values(Protocol):
    """How the values of a task become JSON and come back."""

    @property
    def is_validating(self) -> bool:
        """Whether the payload is checked by the task's own schema here."""
        ...

    def encode_payload(self, value: object) -> str | None: ...

    def decode_output(self, text: str | None) -> object: ...


class Triggerable(Generic[Out]):
    """A task as something to trigger; the typed surfaces are in `ref.py`."""

    def __init__(self, task_id: str, values: Values, target: Target = HERE) -> None:
        self.id = task_id
        self._values, self._target = values, target

    @property
    def label(self) -> str:
        """How errors call it."""
        return self.id

    def result_of(self, outcome: RunOutcome) -> Result[Out]:
        """Return how a run of this task ended."""
        return of_outcome(outcome, self.decode)

    def decode(self, text: str | None) -> Out:
        """Return an output as the declared type."""
        return cast("Out", self._values.decode_output(text))

    def _request(
        self,
        payload: object,
        options: Options,
        *,
        run_id: RunId | None = None,
        parent: RunScope | None = None,
        is_watched: bool = False,
    ) -> TriggerRequest:
        """Return what to ask for; *parent* is the run that will wait for it."""
        from detent.protocol.triggering import TriggerRequest

        text = self._values.encode_payload(payload)
        fields = to_fields(options) if options else {}
        if parent is None:
            fields.setdefault("version", default_version())
        else:
            check_child(options)
        return TriggerRequest(
            run_id=run_id or new_run_id(),
            task_id=self.id,
            payload=text,
            is_validated=self._values.is_validating,
            is_watched=is_watched,
            **fields,  # type: ignore[arg-type]  # each was made for its field by `options.to_fields`
        )

    def _start(self, request: TriggerRequest, connection: object = None) -> Coroutine[Any, Any, RunHandle[Out]]:
        if connection is None:
            return self._start_now(request)
        from detent.sdk import transaction

        return self._start_with(request, transaction.trigger(connection, request, self._target.environment))

    async def _start_with(self, request: TriggerRequest, made: Awaitable[RunId]) -> RunHandle[Out]:
        run_id = await made
        return RunHandle(run_id, self.id, run_id != request.run_id, decode=self.decode)

    async def _start_now(self, request: TriggerRequest) -> RunHandle[Out]:
        from detent.protocol.refusal import Refused, to_error

        answer = await self._target.trigger(request)
        if isinstance(answer, Refused):
            raise to_error(answer)
        return RunHandle(answer.run_id, self.id, answer.is_cached, decode=self.decode)

    def _child(self, payload: object, options: Options) -> ChildCall[Out]:
        name = f"{self.label}.trigger_and_wait"
        present = self._target.run(name)
        return ChildCall(self._wait(present, self._request(payload, options, parent=present)), name)

    async def _wait(self, present: RunScope, request: TriggerRequest) -> Result[Out]:
        return self.result_of(await present.trigger_and_wait(request))

    def _start_batch(self, items: object, options: Options) -> Coroutine[Any, Any, BatchHandle[Out]]:
        return Building.of(items, options, whole=self, target=self._target).start()

    def _run_batch(self, items: object, options: Options) -> Coroutine[Any, Any, BatchResult[Out]]:
        present = self._target.run(f"{self.label}.batch_trigger_and_wait")
        return Building.of(items, options, whole=self, target=self._target, parent=present).run(present)


def task_id_of(task: object) -> str:
    """Return the id of a task that is given as itself or by its id; raises `TypeError` for what is neither."""
    if isinstance(task, Triggerable):
        return task.id
    if not isinstance(task, str):
        raise TypeError(f"a task is given as itself or by its id, not as {task!r}")
    return task


@dataclass(frozen=True, slots=True, eq=False)
class Item(Generic[In_co, Out_co]):
    """One run of a batch, with options of its own: `charge.item(order, delay="5m")`, `tasks.item("charge", {...})`."""

    task: Triggerable[Out_co] = field(repr=False)
    payload: In_co
    options: Options


class Building(Generic[Out]):
    """The requests of a batch, with what their outputs are decoded by."""

    def __init__(
        self, options: Options, whole: Triggerable[Out] | None, target: Target, parent: RunScope | None
    ) -> None:
        self._options, self._whole, self._target, self._parent = options, whole, target, parent
        self._tasks: list[Triggerable[Out]] = []
        self.requests: Requests = ()

    @classmethod
    def of(
        cls,
        items: object,
        options: Options,
        *,
        whole: Triggerable[Out] | None,
        target: Target,
        parent: RunScope | None = None,
    ) -> Building[Out]:
        """Return the batch of *items*: all made now if they have a length, else one by one as they are sent.

        `whole` is the task of them all; without it each must be an `Item`. `parent` is the run that will wait for them.
        """
        building = cls(options, whole, target, parent)
        to_fields(options)
        if parent is not None:
            check_child(options)
        if isinstance(items, (str, bytes, Mapping)) or not isinstance(items, (Iterable, AsyncIterable)):
            raise TypeError(f"a batch is made of an iterable of items, not of {type(items).__name__}")
        if isinstance(items, AsyncIterable):
            building.requests = building._streamed(items)
        elif isinstance(items, Sized) or not is_on_loop():
            # A blocking caller's iterable is read here, in its own thread: it may belong to it (a database cursor).
            building.requests = list(building._made(items))
        else:
            building.requests = building._made(items)
        return building

    async def start(self) -> BatchHandle[Out]:
        if self._is_empty():
            return BatchHandle(new_batch_id(), ())
        given = await self._target.trigger_batch(self.requests, self._key())
        task_at = await self._task_of_each(given.count)
        return BatchHandle(given.batch_id, ItemHandles(given.run_ids, task_at), given.is_cached)

    async def run(self, present: RunScope) -> BatchResult[Out]:
        if self._is_empty():
            return BatchResult(new_batch_id(), ())
        batch_id, outcomes = await present.trigger_batch_and_wait(self.requests)
        task_at = await self._task_of_each(len(outcomes))
        results = tuple(task_at(index).result_of(outcome) for index, outcome in enumerate(outcomes))
        return BatchResult(batch_id, results)

    def _is_empty(self) -> bool:
        return isinstance(self.requests, list) and not self.requests

    def _made(self, items: Iterable[object]) -> Iterator[TriggerRequest]:
        for index, item in enumerate(items):
            yield self._request_of(item, index)

    async def _streamed(self, items: AsyncIterable[object]) -> AsyncIterator[TriggerRequest]:
        index = 0
        async for item in items:
            yield self._request_of(item, index)
            index += 1

    def _request_of(self, item: object, index: int) -> TriggerRequest:
        if not isinstance(item, Item):
            if self._whole is None:
                raise TypeError(
                    f"item {index} is {item!r}; make it with tasks.item(id, payload) or a task's own item(payload)"
                )
            return self._whole._request(item, self._options_of(_NONE, index), run_id=NUMBERED, parent=self._parent)
        if self._whole is None:
            self._tasks.append(item.task)
        elif item.task is not self._whole:
            raise TypeError(
                f'item {index} is of task "{item.task.id}", not of "{self._whole.id}"; use batch.trigger for several tasks'
            )
        return item.task._request(
            item.payload, self._options_of(item.options, index), run_id=NUMBERED, parent=self._parent
        )

    def _options_of(self, own: Options, index: int) -> Options:
        if not self._options:
            return own
        options = {**self._options, **own}
        if "idempotency_key" in self._options and "idempotency_key" not in own:
            options["idempotency_key"] = idempotency.of_item(self._options["idempotency_key"], index)
        return options

    def _key(self) -> Idempotency | None:
        if self._options.get("idempotency_key") is None:
            return None
        fields = to_fields({name: self._options[name] for name in _KEY_OPTIONS if name in self._options})
        return cast("Idempotency", fields["idempotency"])

    async def _task_of_each(self, count: int) -> Callable[[int], Triggerable[Out]]:
        """Return what tells the task of an item by its index."""
        whole = self._whole
        if whole is not None:
            return lambda index: whole
        if len(self._tasks) < count:
            await self._read_on()
        return self._tasks.__getitem__

    async def _read_on(self) -> None:
        """Read what a journal's answer left unread: the items say which task each run is of."""
        if isinstance(self.requests, AsyncIterable):
            async for _ in self.requests:
                pass
        else:
            for _ in self.requests:
                pass
