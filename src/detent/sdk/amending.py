"""What callers outside of a run add to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from detent.errors import MetadataTooLargeError, SerializationError, TooManyTagsError
from detent.protocol import codec
from detent.protocol.backend import CallerBackend
from detent.protocol.codec import JsonValue
from detent.protocol.ids import RunId
from detent.protocol.limits import METADATA_LIMIT, TAGS_LIMIT
from detent.protocol.metadata import MetadataKind, MetadataOperation, RunAnnotation, to_path
from detent.protocol.tags import RunTagging
from detent.sdk.metadata import checked_key, encode


def to_operations(values: Mapping[str, object]) -> tuple[MetadataOperation, ...]:
    """Return what puts *values* at their keys. Raises `SerializationError`, and `ValueError` for a bad key."""
    if not isinstance(values, Mapping):
        raise SerializationError("metadata", f"it must be an object, not {type(values).__name__}")
    return tuple(
        MetadataOperation(kind=MetadataKind.SET, path=to_path(checked_key(key)), value=_plain(key, value))
        for key, value in values.items()
    )


def _plain(key: str, value: object) -> JsonValue:
    """Return a value as it is when it has been stored."""
    return codec.decode(encode(value, what=f"metadata {key!r}"))


async def add_tags(backend: CallerBackend, run_id: RunId, tags: tuple[str, ...]) -> bool:
    """Add tags to a run; False: there is no such run."""
    (answer,) = await backend.tag_runs([RunTagging(run_id=run_id, tags=tags)])
    if answer is not None and answer.count > TAGS_LIMIT:
        raise TooManyTagsError(answer.count, TAGS_LIMIT)
    return answer is not None


async def annotate(
    backend: CallerBackend, run_id: RunId, operations: tuple[MetadataOperation, ...]
) -> dict[str, JsonValue] | None:
    """Change a run's metadata and return it; None: there is no such run."""
    (answer,) = await backend.annotate_runs([RunAnnotation(run_id=run_id, operations=operations)])
    if answer is None:
        return None
    if answer.refused_size is not None:
        raise MetadataTooLargeError(answer.refused_size, METADATA_LIMIT)
    return cast("dict[str, JsonValue]", codec.decode(answer.document))
