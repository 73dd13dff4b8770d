"""JSON as detent stores it: strict, compact, text in and text out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeAlias

from detent.errors import PayloadTooLargeError, SerializationError

if TYPE_CHECKING:
    JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
else:

    class JsonValue:
        """What JSON holds. An alias of itself would send pydantic round for ever: it is told the type of its own."""

        @classmethod
        def __get_pydantic_core_schema__(cls, source, handler):
            from pydantic import JsonValue as Json

            return handler.generate_schema(Json)


PAYLOAD_LIMIT = 10 * 1024 * 1024
"""Bytes of JSON that a payload or an output may have by default."""

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def encode(value: object, *, what: str = "the value", limit: int = PAYLOAD_LIMIT) -> str:
    """Return *value*, made of plain JSON types, as JSON text.

    Raises `SerializationError` for what JSON cannot hold (NaN, infinities, lone surrogates, nesting beyond Python's
    recursion limit, other types), and `PayloadTooLargeError` beyond *limit* bytes.

    >>> encode({"id": "o1", "amount": 5})
    '{"id":"o1","amount":5}'
    """
    try:
        text = _encoder.encode(value)
    except (TypeError, ValueError) as error:
        raise SerializationError(what, str(error)) from error
    except RecursionError as error:
        raise SerializationError(what, "it is nested too deeply") from error
    check_text(text, what=what, limit=limit)
    return text


def check_text(text: str, *, what: str, limit: int = PAYLOAD_LIMIT) -> None:
    """Refuse JSON text that PostgreSQL or another reader could not take."""
    if text.isascii():
        size = len(text)
    else:
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            raise SerializationError(what, f"it holds a lone surrogate ({text[error.start]!r})") from error
    if size > limit:
        raise PayloadTooLargeError(what, size, limit)


def decode(text: str, *, what: str = "the value") -> JsonValue:
    """Return the value of JSON *text*; raises `SerializationError` when it is not JSON.

    >>> decode('{"id":"o1"}')
    {'id': 'o1'}
    """
    try:
        value: JsonValue = json.loads(text)
    except ValueError as error:
        raise SerializationError(what, f"the text is no JSON: {error}") from error
    except RecursionError as error:
        raise SerializationError(what, "it is nested too deeply") from error
    return value
