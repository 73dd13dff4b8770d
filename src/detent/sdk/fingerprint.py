"""What tells the arguments of a step apart: a short hash of them as JSON, the same in every process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

from detent.protocol.codec import JsonValue
from detent.sdk.context import CancelSignal, Context

_LENGTH = 16
# Of these nobody means what they hold: a context has the number of its attempt, and reading an iterator would use it up.
_ONLY_BY_TYPE = (Context, CancelSignal, Iterator)


def of(args: Sequence[object], kwargs: Mapping[str, object]) -> str:
    """Return the fingerprint of a call. What cannot become JSON, such as a client, counts by the name of its type.

    >>> of(("EUR",), {}) == of(["EUR"], {})
    True
    """
    try:
        text = _text([list(args), dict(kwargs)])
    except (TypeError, ValueError, RecursionError):
        text = _text([[_reduced(value) for value in args], {name: _reduced(value) for name, value in kwargs.items()}])
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _reduced(value: object) -> JsonValue:
    if isinstance(value, _ONLY_BY_TYPE):
        return _by_type(value)
    try:
        return _plain(_opened(value))
    except RecursionError:
        return _by_type(value)


def _opened(value: object) -> object:
    """Return *value* with models and dataclasses as dicts, all the way down; what pydantic does not know stays as it is."""
    from pydantic_core import PydanticSerializationError, SchemaSerializer, core_schema

    try:
        opened: object = SchemaSerializer(core_schema.any_schema()).to_python(value, by_alias=True, round_trip=True)
    except (PydanticSerializationError, ValueError):
        return value
    return opened


def _plain(value: object) -> JsonValue:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case set() | frozenset():
            # In one order, whatever the hashes of this process are.
            return sorted((_plain(item) for item in value), key=_text)
        case Iterator():
            return _by_type(value)
    return _scalar(value)


def _scalar(value: object) -> JsonValue:
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        plain: JsonValue = to_jsonable_python(value, by_alias=True, round_trip=True, bytes_mode="base64")
    except (PydanticSerializationError, ValueError):
        return _by_type(value)
    return plain


def _by_type(value: object) -> JsonValue:
    return {"type": type(value).__qualname__}
