"""The exception that a `Refused` answer becomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detent.errors import (
    ApiConnectionError,
    ApiError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    UnprocessableEntityError,
)

if TYPE_CHECKING:
    from detent.protocol.models import Refused

_BY_STATUS: dict[int, type[ApiError]] = {
    kind.status: kind
    for kind in (
        ApiConnectionError,
        AuthenticationError,
        BadRequestError,
        ConflictError,
        NotFoundError,
        PermissionDeniedError,
        RateLimitError,
        UnprocessableEntityError,
    )
}


def to_error(refused: Refused) -> ApiError:
    """Return the error that says what was refused.

    >>> to_error(Refused(status=404, code="run_not_found", message="no such run")).status
    404
    """
    default = InternalServerError if refused.status >= 500 else BadRequestError
    kind = _BY_STATUS.get(refused.status, default)
    return kind(refused.message, code=refused.code, details=refused.details)
