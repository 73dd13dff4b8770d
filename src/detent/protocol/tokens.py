"""Tokens: made, completed, and read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from detent.protocol.idempotency import WaitKey
from detent.protocol.ids import WaitpointId
from detent.protocol.moment import When
from detent.protocol.operations import Origin
from detent.protocol.run_error import RunError
from detent.protocol.status import TokenStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A token to make. The caller makes `waitpoint_id`, so that a request repeated after a lost reply does not double.

    With an origin it is recorded in the journal of the run, and asked for again at that place it is the same token.
    """

    waitpoint_id: WaitpointId
    timeout: When | None = None
    tags: tuple[str, ...] = ()
    key: WaitKey | None = None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCreated:
    """The token that stands for the request: a new one, or with `is_cached` the one its key already had.

    Whoever knows its `secret`, a part of its URL, may complete it.
    """

    waitpoint_id: WaitpointId
    secret: str
    is_cached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCompletion:
    """What a token comes to: an output (JSON text), or an error."""

    waitpoint_id: WaitpointId
    output: str | None = None
    error: RunError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A token as it is read. `output` is JSON text, and left out of lists."""

    id: WaitpointId
    status: TokenStatus
    tags: tuple[str, ...]
    created_at: datetime
    timeout_at: datetime | None
    completed_at: datetime | None
    idempotency_key: str | None
    idempotency_key_expires_at: datetime | None
    secret: str
    output: str | None
    error: RunError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFilter:
    """Newest first, in pages. Empty tuples filter nothing; of `tags` one must be there."""

    statuses: tuple[TokenStatus, ...] = ()
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    before: WaitpointId | None = None
    """Cursor: tokens older than this one."""
    limit: int = 25
