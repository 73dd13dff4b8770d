"""How values become JSON text and come back: by a type (pydantic, loaded when first used), a parser, or as plain JSON.

Floats that JSON lacks (NaN, infinities) are refused on every path: pydantic alone would write them as null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NoReturn, Protocol, TypeAlias

from detent.errors import DefinitionError, SerializationError
from detent.protocol import codec
from detent.protocol.codec import PAYLOAD_LIMIT, JsonValue

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

JsonSchema: TypeAlias = dict[str, JsonValue]
JsonSchemaMode: TypeAlias = Literal["validation", "serialization"]

_REPORTED_ERRORS = 5


class MismatchError(ValueError):
    """A value does not fit a schema. Never leaves the SDK: callers name the task in the error they raise for it."""

    def __init__(self, *details: str) -> None:
        more = len(details) - _REPORTED_ERRORS
        super().__init__("; ".join(details[:_REPORTED_ERRORS]) + (f"; and {more} more" if more > 0 else ""))
        self.details = details


class Schema(Protocol):
    def encode(self, value: object, *, what: str) -> str:
        """Return *value* as JSON text. Raises `MismatchError`, `SerializationError`, `PayloadTooLargeError`."""
        ...

    def decode(self, text: str) -> object:
        """Return the value of JSON *text*. Raises `MismatchError`, `SerializationError`."""
        ...

    def json_schema(self, *, mode: JsonSchemaMode) -> JsonSchema | None:
        """Return the JSON Schema, if there is one."""
        ...


class PlainJson:
    """No schema: whatever JSON can hold, and on the way out whatever pydantic can turn into it."""

    def encode(self, value: object, *, what: str, limit: int = PAYLOAD_LIMIT) -> str:
        try:
            return codec.encode(value, what=what, limit=limit)
        except SerializationError as error:
            if not isinstance(error.__cause__, TypeError):
                raise
        return _encode_rich(value, what, limit)

    def decode(self, text: str) -> JsonValue:
        return codec.decode(text)

    def json_schema(self, *, mode: JsonSchemaMode) -> None:
        return None


class Parsed:
    """A callable that returns the parsed payload or raises."""

    def __init__(self, parse: Callable[[JsonValue], object]) -> None:
        self._parse = parse

    def encode(self, value: object, *, what: str) -> str:
        text = PLAIN.encode(value, what=what)
        self.decode(text)
        return text

    def decode(self, text: str) -> object:
        value = codec.decode(text)
        try:
            return self._parse(value)
        except Exception as error:  # a validator may raise whatever it likes: all of it means "does not fit"
            raise MismatchError(f"{type(error).__name__}: {error}") from error

    def json_schema(self, *, mode: JsonSchemaMode) -> None:
        return None


class Typed:
    """A type. What is encoded is checked by it, and what is decoded is made by it."""

    def __init__(self, resolve: Callable[[], object], *, what: str) -> None:
        self._resolve, self._what = resolve, what

    @cached_property
    def adapter(self) -> TypeAdapter[object]:
        from pydantic import PydanticUserError

        try:
            return _adapter_of(self._resolve())
        except (PydanticUserError, NameError) as error:
            raise DefinitionError(
                f"{self._what} is no type that pydantic knows: {str(error).splitlines()[0]}"
            ) from error

    @cached_property
    def _model(self) -> object:
        """The pydantic model class behind the type: its instances were validated when they were made."""
        from pydantic import BaseModel

        target = self._resolve()
        return target if isinstance(target, type) and issubclass(target, BaseModel) else None

    def encode(self, value: object, *, what: str) -> str:
        if type(value) is not self._model:
            value = self._validate(value)
        return _encode_typed(self.adapter, value, what)

    def decode(self, text: str) -> object:
        from pydantic import ValidationError

        try:
            return self.adapter.validate_json(text)
        except ValidationError as error:
            raise MismatchError(*_misfits(error)) from error
        except RecursionError as error:
            raise MismatchError("it is nested too deeply") from error

    def _validate(self, value: object) -> object:
        from pydantic import ValidationError

        try:
            return self.adapter.validate_python(value)
        except ValidationError as error:
            raise MismatchError(*_misfits(error)) from error
        except RecursionError as error:
            raise MismatchError("it is nested too deeply") from error

    def json_schema(self, *, mode: JsonSchemaMode) -> JsonSchema | None:
        from pydantic import PydanticInvalidForJsonSchema

        try:
            return self.adapter.json_schema(by_alias=True, mode=mode)
        except PydanticInvalidForJsonSchema:
            return None


PLAIN = PlainJson()


def of(source: object, *, what: str) -> Schema:
    """Return the schema that a user names: a class or other type, a `TypeAdapter`, or a callable that parses."""
    if isinstance(source, type) or _is_adapter(source) or not callable(source):
        return Typed(lambda: source, what=what)
    if getattr(source, "__origin__", None) is not None:  # list[Order] and the like are callable, too
        return Typed(lambda: source, what=what)
    return Parsed(source)


def _is_adapter(source: object) -> bool:
    return hasattr(source, "validate_json") and hasattr(source, "dump_json")


def _adapter_of(target: object) -> TypeAdapter[object]:
    from pydantic import TypeAdapter

    return target if isinstance(target, TypeAdapter) else TypeAdapter(target)  # type: ignore[arg-type]  # pydantic says what is no type


def _encode_typed(adapter: TypeAdapter[object], value: object, what: str) -> str:
    from pydantic_core import PydanticSerializationError

    try:
        # round_trip: without computed fields, which a model that forbids extras could not read back
        raw = adapter.dump_json(value, by_alias=True, round_trip=True, warnings="error")
        if b"null" in raw:
            _refuse_nonfinite(adapter.dump_python(value, round_trip=True), what)
    except PydanticSerializationError as error:
        _refuse(error, what)
    except RecursionError as error:
        raise SerializationError(what, "it is nested too deeply") from error
    return _checked(raw, what)


def _encode_rich(value: object, what: str, limit: int) -> str:
    from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

    try:
        raw = to_json(value, by_alias=True, round_trip=True)
        if b"null" in raw:
            _refuse_nonfinite(to_jsonable_python(value, round_trip=True), what)
    except PydanticSerializationError as error:
        raise SerializationError(what, str(error).splitlines()[0]) from error
    except (ValueError, RecursionError) as error:
        raise SerializationError(what, str(error).splitlines()[0]) from error
    return _checked(raw, what, limit)


def _refuse(error: Exception, what: str) -> NoReturn:
    if "PydanticSerializationUnexpectedValue" in str(error):
        raise MismatchError(*(line.strip() for line in str(error).splitlines()[1:])) from error
    raise SerializationError(what, str(error).splitlines()[0]) from error


def _checked(raw: bytes, what: str, limit: int = PAYLOAD_LIMIT) -> str:
    if b"NaN" in raw or b"Infinity" in raw:
        json.loads(raw, parse_constant=lambda name: _refuse_constant(name, what))
    text = raw.decode()
    codec.check_text(text, what=what, limit=limit)
    return text


def _refuse_constant(name: str, what: str) -> NoReturn:
    raise SerializationError(what, f"{name} is no JSON number")


def _refuse_nonfinite(value: object, what: str) -> None:
    rest = [value]
    while rest:
        match rest.pop():
            case float() as number if not math.isfinite(number):
                _refuse_constant(str(number), what)
            case Mapping() as mapping:
                rest.extend(mapping.values())
            case (list() | tuple() | set() | frozenset()) as items:
                rest.extend(items)


def _misfits(error: ValidationError) -> Iterable[str]:
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        yield f"{'.'.join(str(part) for part in item['loc']) or 'the value'}: {item['msg']}"
