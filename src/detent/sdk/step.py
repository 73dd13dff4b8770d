"""`step`: a piece of a run whose result is recorded, so that it is not executed again: not by a replay, nor by a retry."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import update_wrapper
from typing import (
    Any,
    Concatenate,
    Generic,
    NoReturn,
    ParamSpec,
    Self,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from detent.errors import DefinitionError
from detent.protocol.retry import Retry
from detent.sdk import source, spelling
from detent.sdk.definition import AnyTask

# The worker knows steps by this module.
from detent.sdk.failure import failure_to_text as failure_to_text
from detent.sdk.failure import rebuild as rebuild
from detent.sdk.returned import Returned
from detent.sdk.stepping import ONCE, Body

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")

Taking: TypeAlias = Coroutine[object, None, R]
"""A step to be awaited. With Any in it, mypy would see Any in what `gather` returns."""

LONGEST_NAME = 200
_RESERVED = "/#"
"""What parts the operations of a run."""


class StepOptions(TypedDict, total=False):
    """Options of `@step`, all optional.

    - `name`: what the step is called in the run; default the function's name. At most 200 characters, without `/` and `#`.
    - `retry`: a `Retry`, or a number of attempts: they are made inside the run. Default: one.
    """

    name: str
    retry: Retry | int


KNOWN = frozenset(StepOptions.__annotations__)


class _Step(Generic[P, R]):
    """A function as a step; the typed surfaces are below."""

    def __init__(self, body: Body) -> None:
        self._body = body
        update_wrapper(cast("Callable[..., object]", self), body.fn)

    def __repr__(self) -> str:
        return f'<step "{self._body.name}">'

    @property
    def _spelled(self) -> str:
        return getattr(self._body.fn, "__name__", self._body.name)

    def _bound(self, instance: object, owner: type) -> Self:
        bind = getattr(self._body.fn, "__get__", None)
        return self if bind is None else type(self)(replace(self._body, fn=bind(instance, owner)))


class AsyncStep(_Step[P, R]):
    """An `async def` function as a step. Calling it in a run takes the step; outside of one it calls the function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Taking[R]:
        return cast("Taking[R]", self._body.begin(args, kwargs))

    def sync(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Take the step in a task written as plain `def`. The function is executed on the runner's event loop."""
        call = self._spelled
        return cast("R", self._body.do(args, kwargs, call=f"{call}.sync", instead=f"{call}(…)"))

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self: AsyncStep[Concatenate[S, Q], R], instance: S, owner: type) -> AsyncStep[Q, R]: ...
    def __get__(self, instance: object, owner: type) -> object:
        return self if instance is None else self._bound(instance, owner)


class Step(_Step[P, R]):
    """A plain function as a step. Calling it in a run's thread takes the step; outside of a run it calls the function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        call = self._spelled
        return cast("R", self._body.do(args, kwargs, call=f"{call}()", instead=f"{call}.async_(…)"))

    def async_(self, *args: P.args, **kwargs: P.kwargs) -> Taking[R]:
        """Take the step in a task written as `async def`. The function is executed in a thread."""
        return cast("Taking[R]", self._body.begin(args, kwargs))

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self: Step[Concatenate[S, Q], R], instance: S, owner: type) -> Step[Q, R]: ...
    def __get__(self, instance: object, owner: type) -> object:
        return self if instance is None else self._bound(instance, owner)


# The overloads overlap on purpose: the first that matches is the right one. To mypy a ParamSpec is more than *args, **kwargs.


class StepDecorator:
    """`@step(...)` with options."""

    def __init__(self, options: Mapping[str, object]) -> None:
        self._options = options

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...
    def __call__(self, fn: Callable[..., object], /) -> object:
        return _defined(fn, self._options)


class StepSync:
    """`step` as a blocking call, for tasks written as plain `def`."""

    @overload
    def __call__(
        self, name: str, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    def __call__(self, name: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def __call__(self, *given: object, **kwargs: object) -> object:  # type: ignore[misc]
        """Take a step and return its result. A plain function is executed in the thread that calls.

        Example::

            rate = step.sync("fetch-rate", fetch_rate, "EUR")
        """
        body, args = _called(given)
        return body.do(args, kwargs, call="step.sync", instead=f'step("{body.name}", …)')


class StepMaker:
    """`step`: called with a name and a function it takes a step; as a decorator, it makes one of a function."""

    def __init__(self) -> None:
        self.sync = StepSync()

    @overload
    def __call__(
        self, name: str, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Taking[R]: ...
    @overload
    def __call__(self, name: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Taking[R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...
    @overload
    def __call__(self, **options: Unpack[StepOptions]) -> StepDecorator: ...
    def __call__(self, *given: object, **kwargs: object) -> object:  # type: ignore[misc]
        """Take a step: execute a function and record its result, or answer from the record. Or make a step of a function.

        Example::

            rate = await step("fetch-rate", fetch_rate, "EUR")

            @step(retry=Retry(max_attempts=5))
            async def fetch_rate(currency: str) -> float: ...

        What follows the function is passed to it; a plain function is executed in a thread. The result passes through JSON, and
        comes back as the return annotation says. Raises `SerializationError` for one that cannot, and what the function raises.
        """
        if not given:
            return StepDecorator(kwargs)
        if len(given) == 1 and not kwargs and callable(given[0]):
            return _defined(given[0], {})
        body, args = _called(given)
        return body.begin(args, kwargs)


step = StepMaker()


def _called(given: tuple[object, ...]) -> tuple[Body, tuple[object, ...]]:
    """Return the step that a name and a function are, and the arguments."""
    name, fn, *args = (*given, None) if len(given) == 1 else given
    if not isinstance(name, str):
        raise TypeError(
            f'a step is called with its name first, as in step("fetch-rate", fetch_rate, "EUR"), and not with {name!r}'
        )
    if flaw := _flaw(name, fn):
        raise ValueError(f"step {name!r}: {flaw}")
    if inspect.iscoroutine(fn):
        fn.close()
        raise TypeError(f'step "{name}" takes a function, not its call: step("{name}", {fn.__name__}, …)')
    if not callable(fn):
        raise TypeError(
            f'step "{name}" takes a function and its arguments, not {fn!r}; to decorate, say @step(name="{name}")'
        )
    if isinstance(fn, _Step):
        return replace(fn._body, name=name), tuple(args)
    return Body(name=name, fn=fn, returned=Returned(fn)), tuple(args)


def _defined(fn: Callable[..., object], options: Mapping[str, object]) -> _Step[..., object]:
    """Return *fn* as a step. Raises `DefinitionError`."""
    if not callable(fn) or isinstance(fn, (type, AnyTask, _Step)):
        raise DefinitionError(f"a step is made of a function, not of {fn!r}")
    name = options.get("name", getattr(fn, "__name__", None))

    def refuse(why: str) -> NoReturn:
        raise DefinitionError(f"step {name!r} in {source.of_function(fn).place}: {why}")

    for option in options:
        if option not in KNOWN:
            refuse(f"unknown option {option!r}{spelling.hint(option, KNOWN)}")
    if not isinstance(name, str):
        refuse("give it a text as name=")
    if flaw := _flaw(name, fn):
        refuse(flaw)
    returned = Returned(fn)
    try:
        body = Body(name=name, fn=fn, returned=returned, retry=_retry(options.get("retry")))
        returned.check()
    except DefinitionError as error:
        refuse(str(error))
    return AsyncStep(body) if body.is_async else Step(body)


def _flaw(name: str, fn: object) -> str:
    """Return what is wrong with a step, empty for nothing."""
    if not name.strip() or len(name) > LONGEST_NAME:
        return f"a name has 1 to {LONGEST_NAME} characters"
    if not name.isprintable() or any(mark in name for mark in _RESERVED):
        return 'a name is printable text without "/" and "#"'
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        return "a generator cannot be a step; return a list"
    return ""


def _retry(given: object) -> Retry:
    if given is None:
        return ONCE
    if isinstance(given, Retry):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return Retry(max_attempts=given)
    raise DefinitionError(f"retry={given!r} must be a Retry or a number of attempts")
