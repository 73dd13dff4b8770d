"""The metadata of runs: what may be done to a document, and what comes of it.

The database does the same to the stored document (`detent.apply_metadata` in 0009); a test compares the two. An operation whose
path leads through something that can hold nothing leaves the document as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from detent.errors import SerializationError
from detent.protocol.codec import JsonValue

if TYPE_CHECKING:
    from detent.protocol.fence import Holder
    from detent.protocol.ids import RunId

Document: TypeAlias = dict[str, JsonValue]
Path: TypeAlias = tuple[str, ...]

_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_INDEX = re.compile(r"[0-9]{1,9}")


class MetadataKind(StrEnum):
    SET = "set"
    DELETE = "delete"
    APPEND = "append"
    """To a list; what is there and is none becomes the first member of one."""
    REMOVE = "remove"
    """All equal members of a list."""
    INCREMENT = "increment"
    """What is not a number counts as 0."""
    REPLACE = "replace"
    """The whole document."""


class MetadataTarget(StrEnum):
    """Whose document: the run's own, or that of the run that triggered it, or of the first in this line."""

    OWN = "own"
    PARENT = "parent"
    ROOT = "root"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataOperation:
    """`path` is that of a value in the document: keys of objects, indexes of lists."""

    kind: MetadataKind
    target: MetadataTarget = MetadataTarget.OWN
    path: Path = ()
    value: JsonValue = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedOperation:
    """An operation, and where in the run's code it was asked for: what a replay asks for again is applied once.

    `number` rises along each `place`.
    """

    place: str
    number: int
    operation: MetadataOperation


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataUpdate:
    """What a run does to metadata, in order; with no operations, it reads its own."""

    holder: Holder
    operations: tuple[PlacedOperation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataUpdated:
    """The run's own document, as JSON text, afterwards. `is_refused`: a document would have been too large, and is as before."""

    document: str
    is_refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAnnotation:
    """What somebody outside does to a run's metadata: operations that come to the same when repeated, for a reply may be lost."""

    run_id: RunId
    operations: tuple[MetadataOperation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAnnotated:
    """The document as JSON text afterwards. `refused_size`: bytes that it would have had, too many; it is as before."""

    document: str
    refused_size: int | None = None


def check_text(text: str, *, what: str) -> None:
    """Raise `SerializationError` for JSON text that metadata, unlike payloads, cannot hold."""
    if "\\u0000" in text and _ESCAPED_NUL.search(text):
        raise SerializationError(what, "it holds a NUL character, which the database cannot store")


def to_path(key: str) -> Path:
    """Return the path that a key stands for.

    >>> to_path("progress"), to_path("$.files.0.name")
    (('progress',), ('files', '0', 'name'))
    """
    return tuple(key[2:].split(".")) if key.startswith("$.") else (key,)


def find(value: JsonValue, path: Path) -> JsonValue:
    """Return what is at *path*, None when there is nothing."""
    for key in path:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and _INDEX.fullmatch(key) and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def can_hold(value: JsonValue, path: Path) -> bool:
    """Whether something can be put at *path*: what is not there yet becomes an object, or the next member of a list."""
    if not path or value is None:
        return True
    key, rest = path[0], path[1:]
    if isinstance(value, dict):
        return can_hold(value.get(key), rest)
    if isinstance(value, list) and _INDEX.fullmatch(key) and int(key) <= len(value):
        return int(key) == len(value) or can_hold(value[int(key)], rest)
    return False


def apply(document: Document, operation: MetadataOperation) -> Document:
    """Return *document* as it is after an operation; the given one stays as it was.

    >>> apply({"done": 1}, MetadataOperation(kind=MetadataKind.INCREMENT, path=("done",), value=2))
    {'done': 3}
    """
    if operation.kind is MetadataKind.REPLACE:
        return operation.value if isinstance(operation.value, dict) else document
    if not can_hold(document, operation.path):
        return document
    if operation.kind is MetadataKind.DELETE:
        changed = _without(document, operation.path)
    else:
        present = find(document, operation.path)
        if operation.kind is MetadataKind.REMOVE and not isinstance(present, list):
            return document
        changed = _with(document, operation.path, _after(present, operation))
    return changed if isinstance(changed, dict) else document


def are_equal(one: JsonValue, other: JsonValue) -> bool:
    """Whether two values are the same JSON: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(are_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(are_equal(one[key], other[key]) for key in one)
    return one == other


def _after(present: JsonValue, operation: MetadataOperation) -> JsonValue:
    value = operation.value
    if operation.kind is MetadataKind.INCREMENT:
        return _number(present) + _number(value)
    if operation.kind is MetadataKind.APPEND:
        listed = present if isinstance(present, list) else [] if present is None else [present]
        return [*listed, value]
    if operation.kind is MetadataKind.REMOVE and isinstance(present, list):
        return [member for member in present if not are_equal(member, value)]
    return value


def _number(value: JsonValue) -> int | float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


def _with(value: JsonValue, path: Path, new: JsonValue) -> JsonValue:
    if not path:
        return new
    key, rest = path[0], path[1:]
    if not isinstance(value, list):
        held = value if isinstance(value, dict) else {}
        return {**held, key: _with(held.get(key), rest, new)}
    index = int(key)
    present = value[index] if index < len(value) else None
    return [*value[:index], _with(present, rest, new), *value[index + 1 :]]


def _without(value: JsonValue, path: Path) -> JsonValue:
    key, rest = path[0], path[1:]
    if isinstance(value, dict) and key in value:
        if rest:
            return {**value, key: _without(value[key], rest)}
        return {name: kept for name, kept in value.items() if name != key}
    if isinstance(value, list) and int(key) < len(value):
        index = int(key)
        return [*value[:index], *([_without(value[index], rest)] if rest else ()), *value[index + 1 :]]
    return value
