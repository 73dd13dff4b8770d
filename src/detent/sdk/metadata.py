"""`metadata`: what a run says about itself while it runs, for whoever reads the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from detent.errors import MetadataTooLargeError, PayloadTooLargeError, SerializationError
from detent.protocol import codec
from detent.protocol import metadata as protocol
from detent.protocol.codec import JsonValue
from detent.protocol.limits import METADATA_LIMIT
from detent.protocol.metadata import MetadataKind, MetadataOperation, MetadataTarget
from detent.sdk import scope as run_scope
from detent.sdk.blocking import blocking
from detent.sdk.schema import PLAIN

if TYPE_CHECKING:
    from pydantic import BaseModel


class MetadataUpdates:
    """The updates of one document. They take effect at once for the run itself and reach the database within 300 ms.

    Each returns the same object, to be chained. A key names a value of the document; one that begins with `$.` is a path:
    `$.files.0.name` is in the list `files`. What is missing on the way becomes an object; an update whose path leads through
    something else changes nothing. Values are what payloads can hold, and read as plain JSON. Outside of runs all raise
    `OutsideRunError`; beyond 262,144 bytes, `MetadataTooLargeError`.

    Example::

        metadata.set("state", "charging").increment("done").append("log", "charged")
    """

    def __init__(self, target: MetadataTarget, label: str) -> None:
        self._target, self.label = target, label

    def set(self, key: str, value: object) -> Self:
        """Put a value at a key."""
        return self._update("set", MetadataKind.SET, key, value)

    def delete(self, key: str) -> Self:
        """Take a key away, if it is there."""
        return self._update("delete", MetadataKind.DELETE, key)

    def append(self, key: str, value: object) -> Self:
        """Add to a list. What is there and is no list becomes its first member."""
        return self._update("append", MetadataKind.APPEND, key, value)

    def remove(self, key: str, value: object) -> Self:
        """Take all equal members from a list."""
        return self._update("remove", MetadataKind.REMOVE, key, value)

    def increment(self, key: str, by: float = 1) -> Self:
        """Add to a number; what is missing, or is none, counts as 0. Increments of many runs add up."""
        return self._update("increment", MetadataKind.INCREMENT, key, _number(by))

    def decrement(self, key: str, by: float = 1) -> Self:
        """Subtract from a number; what is missing, or is none, counts as 0."""
        return self._update("decrement", MetadataKind.INCREMENT, key, -_number(by))

    def replace(self, document: Mapping[str, object] | BaseModel) -> Self:
        """Put another document in place of the whole."""
        scope = run_scope.require(f"{self.label}.replace")
        value = codec.decode(encode_document(document, what="metadata"))
        scope.document.update(MetadataOperation(kind=MetadataKind.REPLACE, target=self._target, value=value))
        return self

    def _update(self, call: str, kind: MetadataKind, key: str, value: object = None) -> Self:
        scope = run_scope.require(f"{self.label}.{call}")
        path = protocol.to_path(checked_key(key))
        plain = codec.decode(encode(value, what=f"metadata {key!r}"))
        scope.document.update(MetadataOperation(kind=kind, target=self._target, path=path, value=plain))
        return self


class Metadata(MetadataUpdates):
    """The run's own metadata; `metadata.parent` and `metadata.root` update that of the run that triggered it, and of the first.

    A run that no other has triggered is its own parent and root. A run that is over takes updates for an hour more.
    """

    def __init__(self) -> None:
        super().__init__(MetadataTarget.OWN, "metadata")
        self.parent = MetadataUpdates(MetadataTarget.PARENT, "metadata.parent")
        self.root = MetadataUpdates(MetadataTarget.ROOT, "metadata.root")
        self.sync = MetadataSync(self)

    def get(self, key: str) -> JsonValue:
        """Return a copy of what is at a key or path; None when there is nothing, and outside of runs.

        Example::

            done = metadata.get("done")
        """
        scope = run_scope.current()
        return None if scope is None else scope.document.read(checked_key(key))

    def current(self) -> dict[str, JsonValue] | None:
        """Return a copy of the whole document; None outside of runs."""
        scope = run_scope.current()
        return None if scope is None else scope.document.read_all()

    async def flush(self) -> None:
        """Return when every update that was made so far is stored; they are stored within 300 ms anyway."""
        await run_scope.require("metadata.flush").document.flush()

    async def refresh(self) -> None:
        """Fetch what the database holds: with the updates that children have made of it."""
        await run_scope.require("metadata.refresh").document.refresh()


class MetadataSync:
    """`metadata.flush` and `metadata.refresh` as blocking calls."""

    def __init__(self, metadata: Metadata) -> None:
        self.flush = blocking(metadata.flush)
        self.refresh = blocking(metadata.refresh)


metadata = Metadata()


def checked_key(key: object) -> str:
    """Return *key* if it may name a value of a document."""
    if not isinstance(key, str):
        raise TypeError(f"a metadata key must be text, not {key!r}")
    if not key or key == "$.":
        raise ValueError("a metadata key cannot be empty")
    encode(key, what=f"metadata key {key!r}")
    return key


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"metadata is incremented by a number, not by {value!r}")
    return value


def encode_document(document: object, *, what: str) -> str:
    """Return a whole document as JSON text that metadata can hold; raises `SerializationError` and `MetadataTooLargeError`."""
    if isinstance(document, Mapping) and not all(isinstance(key, str) for key in document):
        raise SerializationError(what, "its keys must be texts")
    text = encode(dict(document) if isinstance(document, Mapping) else document, what=what)
    if not text.startswith("{"):
        raise SerializationError(what, f"it must be an object of texts to JSON values, not {type(document).__name__}")
    return text


def encode(value: object, *, what: str) -> str:
    """Return a value as JSON text that metadata can hold; raises `SerializationError` and `MetadataTooLargeError`."""
    try:
        text = PLAIN.encode(value, what=what, limit=METADATA_LIMIT)
    except PayloadTooLargeError as error:
        raise MetadataTooLargeError(error.size, error.limit) from error
    protocol.check_text(text, what=what)
    return text
