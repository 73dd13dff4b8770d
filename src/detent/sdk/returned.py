"""What any function returns, by its return annotation: how its results become JSON and come back."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache, partial

from detent.errors import DefinitionError
from detent.sdk import schema, source
from detent.sdk.signature import UNTYPED, Annotation

_KEPT = 512


class Returned:
    """The return annotation of a function. It may name what is defined later: it is resolved when it is first needed."""

    def __init__(self, fn: Callable[..., object]) -> None:
        while isinstance(fn, partial):
            fn = fn.func
        self._fn = fn
        function = _function(fn)
        value = getattr(function, "__annotations__", {}).get("return", inspect.Parameter.empty)
        self._annotation = Annotation(
            value=value, globals=getattr(function, "__globals__", {}), locals=_local_names(function, value)
        )

    @cached_property
    def values(self) -> schema.Schema:
        """Its schema; plain JSON without an annotation. Raises `DefinitionError` (without a name) for what is no type."""
        try:
            target = self._target()
        except NameError as error:
            raise DefinitionError(
                f"the return annotation {self._annotation.value!r} cannot be resolved ({error}); "
                "import what it names where the function is, and not for type checkers only"
            ) from error
        if target is UNTYPED or target is type(None):
            return schema.PLAIN
        typed = _typed(target)
        # Made now: a result that nobody can read must not come of work that was already done.
        _ = typed.adapter
        return typed

    def check(self) -> None:
        """Raise `DefinitionError` for what is no type. What names something that is not there yet passes."""
        with suppress(NameError):
            self._target()

    def _target(self) -> object:
        if isinstance(self._fn, type):
            return self._fn
        try:
            resolved = self._annotation.resolve()
        except (TypeError, SyntaxError, AttributeError) as error:
            raise DefinitionError(f"the return annotation {self._annotation.value!r} is no type: {error}") from error
        if _is_awaitable(typing.get_origin(resolved)):
            resolved = typing.get_args(resolved)[-1]
        if resolved is typing.Self:
            owner = getattr(self._fn, "__self__", None)
            return owner if isinstance(owner, type) else type(owner)
        return UNTYPED if resolved is typing.Any or resolved is object else resolved


def _function(fn: Callable[..., object]) -> object:
    """Return what holds the annotations of *fn*."""
    inner = inspect.unwrap(fn)
    if inspect.isroutine(inner) or isinstance(inner, type):
        return getattr(inner, "__func__", inner)
    return type(inner).__call__


def _local_names(function: object, annotation: object) -> Mapping[str, object]:
    is_local = isinstance(annotation, str) and "<locals>" in getattr(function, "__qualname__", "")
    return source.caller().f_locals if is_local else {}


def _is_awaitable(origin: object) -> bool:
    return isinstance(origin, type) and issubclass(origin, Awaitable)


def _typed(target: object) -> schema.Typed:
    try:
        # By its text, too: unions are equal in any order, but not to pydantic.
        return _kept(target, str(target))
    except TypeError:  # an annotation that is not hashable
        return _made(target)


@lru_cache(maxsize=_KEPT)
def _kept(target: object, text: str) -> schema.Typed:
    return _made(target)


def _made(target: object) -> schema.Typed:
    return schema.Typed(lambda: target, what=f"the return annotation {target}")
