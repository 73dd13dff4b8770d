"""`@task`: a function becomes something that can be triggered, and stays a function."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from detent.errors import DefinitionError
from detent.sdk.context import CancelSignal, Context
from detent.sdk.definition import AnyTask, SchemaTaskOptions, TaskOptions
from detent.sdk.ref import BareTaskRef, TaskRef
from detent.sdk.registry import registry
from detent.sdk.triggering import Triggerable

if TYPE_CHECKING:
    from pydantic import TypeAdapter

In = TypeVar("In")
Given = TypeVar("Given")
Out = TypeVar("Out")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
P = ParamSpec("P")


class Task(AnyTask, TaskRef[In, Out], Generic[In, Out, P, R]):
    """A task that takes a payload of type `In` and returns an `Out`. Calling it is calling the plain function.

    Where a task is passed on, annotate it as `TaskRef[In, Out]`.
    """

    def __init__(self, fn: Callable[..., object], options: Mapping[str, object]) -> None:
        AnyTask.__init__(self, fn, options)
        Triggerable.__init__(self, self.id, self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function, with no platform: `await charge(order, ctx)` in a unit test."""
        return cast("R", self._fn(*args, **kwargs))


class BareTask(AnyTask, BareTaskRef[Out], Generic[Out, P, R]):
    """A task that takes no payload and returns an `Out`. Calling it is calling the plain function."""

    def __init__(self, fn: Callable[..., object], options: Mapping[str, object]) -> None:
        AnyTask.__init__(self, fn, options)
        Triggerable.__init__(self, self.id, self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function, with no platform."""
        return cast("R", self._fn(*args, **kwargs))


# What detent fills in is told from a payload by type and name together: by type alone, a payload of type `object` would count
# as a Context, for it can be given one.


class _TakesCtx(Protocol[P, R_co]):
    def __call__(self, ctx: Context, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class _TakesContext(Protocol[P, R_co]):
    def __call__(self, context: Context, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class _TakesSignal(Protocol[P, R_co]):
    def __call__(self, signal: CancelSignal, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


Async: TypeAlias = Coroutine[Any, Any, Out]


class TaskDecorator:
    """`@task`, and `@task(...)` with options."""

    def __init__(self, options: Mapping[str, object]) -> None:
        self._options = options

    # The overloads overlap on purpose: the first that matches is the right one.

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: _TakesCtx[P, Async[Out]], /
    ) -> BareTask[Out, Concatenate[Context, P], Async[Out]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: _TakesContext[P, Async[Out]], /
    ) -> BareTask[Out, Concatenate[Context, P], Async[Out]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: _TakesSignal[P, Async[Out]], /
    ) -> BareTask[Out, Concatenate[CancelSignal, P], Async[Out]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[Concatenate[In, P], Async[Out]], /
    ) -> Task[In, Out, Concatenate[In, P], Async[Out]]: ...
    @overload
    def __call__(self, fn: Callable[[], Async[Out]], /) -> BareTask[Out, [], Async[Out]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: _TakesCtx[P, Out], /
    ) -> BareTask[Out, Concatenate[Context, P], Out]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: _TakesContext[P, Out], /
    ) -> BareTask[Out, Concatenate[Context, P], Out]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: _TakesSignal[P, Out], /
    ) -> BareTask[Out, Concatenate[CancelSignal, P], Out]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[In, P], Out], /) -> Task[In, Out, Concatenate[In, P], Out]: ...
    @overload
    def __call__(self, fn: Callable[[], Out], /) -> BareTask[Out, [], Out]: ...
    @overload
    def __call__(self, **options: Unpack[TaskOptions]) -> TaskDecorator: ...
    def __call__(self, *fn: Callable[..., object], **options: object) -> object:
        """Make a task of a function.

        Example::

            @task(id="charge", retry=Retry(max_attempts=5))
            async def charge(order: Order, ctx: Context) -> Receipt: ...

        The first parameter is the payload, and may be absent; `ctx: Context` and `signal: CancelSignal` are filled in. The
        payload's annotation is its schema, the return annotation the output's. Raises `DefinitionError`.
        """
        given = {**self._options, **options}
        return define(fn[0], given) if fn else TaskDecorator(given)


task = TaskDecorator({})


class SchemaTaskDecorator(Generic[Given, In]):
    """`@schema_task(schema=...)`: callers give a `Given`, the function gets what the schema makes of it."""

    def __init__(self, options: Mapping[str, object]) -> None:
        self._options = options

    @overload
    def __call__(
        self, fn: Callable[Concatenate[In, P], Async[Out]], /
    ) -> Task[Given, Out, Concatenate[In, P], Async[Out]]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[In, P], Out], /) -> Task[Given, Out, Concatenate[In, P], Out]: ...
    def __call__(self, fn: Callable[..., object], /) -> object:
        return define(fn, self._options)


@overload
def schema_task(*, schema: type[In], **options: Unpack[SchemaTaskOptions]) -> SchemaTaskDecorator[In, In]: ...
@overload
def schema_task(*, schema: TypeAdapter[In], **options: Unpack[SchemaTaskOptions]) -> SchemaTaskDecorator[In, In]: ...
@overload
def schema_task(
    *, schema: Callable[[Given], In], **options: Unpack[SchemaTaskOptions]
) -> SchemaTaskDecorator[Given, In]: ...
def schema_task(*, schema: object, **options: object) -> object:
    """Make a task whose payload is checked by *schema*: a pydantic model, a `TypeAdapter`, or a callable that parses or raises.

    Example::

        @schema_task(schema=Order, id="charge")
        async def charge(order: Order) -> Receipt: ...
    """
    return SchemaTaskDecorator[object, object]({**options, "schema": schema})


def define(
    fn: Callable[..., object], options: Mapping[str, object]
) -> Task[Any, Any, ..., Any] | BareTask[Any, ..., Any]:
    """Make a task of a function, and register it. Raises `DefinitionError`."""
    if not callable(fn) or isinstance(fn, (type, AnyTask)):
        raise DefinitionError(
            f"a task is made of a function, not of {fn!r}; options are given by name, as in @task(id=...)"
        )
    read: Task[Any, Any, ..., Any] = Task(fn, options)
    made: Task[Any, Any, ..., Any] | BareTask[Any, ..., Any] = read if read.takes_payload else BareTask(fn, options)
    registry.add(made)
    return made
