"""What the parameters of a task's function mean: the payload first, then what detent fills in."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import SimpleNamespace

from detent.errors import DefinitionError
from detent.sdk.context import CancelSignal, Context


class Filled(IntEnum):
    """What a parameter is given: the place in `(payload, context, signal)`."""

    PAYLOAD = 0
    CONTEXT = 1
    SIGNAL = 2


_BY_NAME = {"ctx": Filled.CONTEXT, "signal": Filled.SIGNAL}
_BY_TYPE: dict[object, Filled] = {Context: Filled.CONTEXT, CancelSignal: Filled.SIGNAL}
_BY_TEXT = {"Context": Filled.CONTEXT, "CancelSignal": Filled.SIGNAL}


class _Untyped:
    """The annotation of what has none."""


UNTYPED = _Untyped()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Annotation:
    """An annotation, and the names that its text refers to."""

    value: object
    globals: Mapping[str, object]
    locals: Mapping[str, object]

    def resolve(self) -> object:
        """Return the type; `UNTYPED` for none, `Any` and `object`. Raises `NameError` for a name that is not there (yet)."""
        if self.value is inspect.Parameter.empty:
            return UNTYPED
        holder = SimpleNamespace(__annotations__={"it": self.value})
        resolved: object = typing.get_type_hints(holder, dict(self.globals), dict(self.locals), include_extras=True)[
            "it"
        ]
        return UNTYPED if resolved is typing.Any or resolved is object else resolved


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Signature:
    """`positional` and `keywords` say how to call the function."""

    positional: tuple[Filled, ...]
    keywords: tuple[tuple[str, Filled], ...]
    payload: Annotation | None
    """None when the function takes no payload."""
    default: object
    """The payload's default; `inspect.Parameter.empty` when it has none."""
    output: Annotation

    @property
    def takes_signal(self) -> bool:
        return Filled.SIGNAL in self.positional or any(filled is Filled.SIGNAL for _, filled in self.keywords)


def read(fn: Callable[..., object], names: Mapping[str, object]) -> Signature:
    """Return what the parameters of *fn* mean; *names* are the local names where it is defined.

    Raises `DefinitionError` (without the task's name) for a parameter that nobody would fill in.
    """
    space = getattr(fn, "__globals__", {})
    positional: list[Filled] = []
    keywords: list[tuple[str, Filled]] = []
    payload, default = None, inspect.Parameter.empty
    signature = inspect.signature(fn)
    for number, parameter in enumerate(signature.parameters.values()):
        annotation = Annotation(value=parameter.annotation, globals=space, locals=names)
        filled = _meaning(parameter, annotation)
        if filled is None:
            filled = _as_payload(parameter, number)
        if filled is Filled.PAYLOAD:
            payload, default = annotation, parameter.default
        if parameter.kind is parameter.KEYWORD_ONLY:
            keywords.append((parameter.name, filled))
        else:
            positional.append(filled)
    return Signature(
        positional=tuple(positional),
        keywords=tuple(keywords),
        payload=payload,
        default=default,
        output=Annotation(value=signature.return_annotation, globals=space, locals=names),
    )


def _meaning(parameter: inspect.Parameter, annotation: Annotation) -> Filled | None:
    if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
        return None
    if parameter.name in _BY_NAME:
        return _BY_NAME[parameter.name]
    try:
        resolved = annotation.resolve()
    except (NameError, AttributeError, SyntaxError, TypeError):
        # A name defined further down, or imported for type checkers only: all that is known is how it is written.
        return _BY_TEXT.get(str(annotation.value).rpartition(".")[2])
    try:
        return _BY_TYPE.get(resolved)
    except TypeError:  # an unhashable annotation
        return None


def _as_payload(parameter: inspect.Parameter, number: int) -> Filled:
    if number == 0 and parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}:
        return Filled.PAYLOAD
    raise DefinitionError(
        f'nobody would fill in the parameter "{parameter.name}"; a task takes its payload first, '
        'and may take "ctx: Context" and "signal: CancelSignal": put what else it needs into the payload'
    )
