"""Tokens: what a run waits for until somebody, anywhere, completes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from detent.errors import DetentError, NotFoundError, SerializationError
from detent.protocol import ids
from detent.protocol.ids import WaitpointId
from detent.sdk import http, schema
from detent.sdk.calls import Awaited
from detent.sdk.result import Err, Ok, Result
from detent.sdk.schema import MismatchError, Schema

if TYPE_CHECKING:
    from datetime import datetime

    from detent.protocol.run_error import RunError
    from detent.protocol.status import TokenStatus
    from detent.protocol.tokens import TokenCreated, TokenRecord
    from detent.protocol.waits import WaitResult

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Token(Generic[T]):
    """A token that was made, or with `is_cached` the one that its idempotency key already had.

    A POST to `url` completes it with the JSON that is posted: give it to nobody else, for that needs no other key.
    """

    id: WaitpointId
    url: str = field(repr=False)
    is_cached: bool = False
    schema: Schema = field(repr=False, kw_only=True)
    """Of what it is completed with."""

    @property
    def public_access_token(self) -> str:
        """What a browser completes it with. Not available yet: raises `DetentError`."""
        raise DetentError(
            f"the public access token of {self.id} is not available yet: it is made by the HTTP server, which comes later; "
            "let your backend call wait.complete_token(token.id, ...)"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RetrievedToken(Generic[T]):
    """A token as it was when it was read. Times are aware."""

    id: WaitpointId
    status: TokenStatus
    url: str = field(repr=False)
    tags: tuple[str, ...]
    created_at: datetime
    timeout_at: datetime | None
    completed_at: datetime | None
    """When it was completed, or timed out."""
    idempotency_key: str | None
    idempotency_key_expires_at: datetime | None
    output: T | None
    """What it was completed with; None in lists."""
    error: RunError | None
    """That it timed out."""


class TokenCall(Awaited[Result[T]]):
    """The wait for a token: await it for its `Result`, or unwrap it.

    Example::

        approval = await wait.for_token(token).unwrap()
    """

    __slots__ = ()

    async def unwrap(self) -> T:
        """Return what the token was completed with. Raises `WaitTimeoutError` when nobody did in time."""
        return (await self).unwrap()


def schema_of(output: object) -> Schema:
    """Return the schema that `output=` names."""
    return schema.PLAIN if output is None else schema.of(output, what="output= of a token")


def of_created(created: TokenCreated, output: Schema) -> Token[Any]:
    url = http.callback_url(created.waitpoint_id, created.secret)
    return Token(created.waitpoint_id, url, created.is_cached, schema=output)


def of_record(record: TokenRecord, output: Schema) -> RetrievedToken[Any]:
    """Return a token as callers see it."""
    return RetrievedToken(
        id=record.id,
        status=record.status,
        url=http.callback_url(record.id, record.secret),
        tags=record.tags,
        created_at=record.created_at,
        timeout_at=record.timeout_at,
        completed_at=record.completed_at,
        idempotency_key=record.idempotency_key,
        idempotency_key_expires_at=record.idempotency_key_expires_at,
        output=_decode(record.id, record.output, output),
        error=record.error,
    )


def to_result(token_id: WaitpointId, found: WaitResult, output: Schema) -> Result[Any]:
    """Return what a wait for a token came to."""
    if found.error is not None:
        return Err(found.error, id=token_id)
    return Ok(_decode(token_id, found.output, output), id=token_id)


def encode(token_id: WaitpointId, data: object, output: Schema) -> str:
    """Return what a token is completed with as JSON text. Raises `SerializationError` when it does not fit the token's type."""
    what = f"the data for token {token_id}"
    try:
        return output.encode(data, what=what)
    except MismatchError as error:
        raise SerializationError(what, f"it does not fit the output= of the token: {error}") from error


def id_of(token: object) -> WaitpointId:
    """Return the id of a token that is given as itself or by its id; raises `ValueError` for what is no id."""
    if isinstance(token, Token):
        return token.id
    if not isinstance(token, str):
        raise TypeError(f"a token is given as itself or by its id, not as {token!r}")
    ids.decode("waitpoint", token)
    return WaitpointId(token)


def schema_for(token: object, output: object) -> Schema:
    """Return the schema of a token: its own, or the one that is named for an id."""
    if not isinstance(token, Token):
        return schema_of(output)
    if output is not None:
        raise TypeError("output= is for a token given by its id; this one knows what it was made with")
    return cast("Token[object]", token).schema


def unknown(token_id: WaitpointId) -> NotFoundError:
    return NotFoundError(f"there is no token {token_id} in this environment", code="unknown_token")


def _decode(token_id: WaitpointId, text: str | None, output: Schema) -> object:
    if text is None:
        return None
    try:
        return output.decode(text)
    except MismatchError as error:
        what = f"what token {token_id} was completed with"
        raise SerializationError(what, f"it does not fit output=: {error}") from error
