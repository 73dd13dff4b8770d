"""What a caller is answered that asked for something wrong, and the exception that it becomes."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The answer to one request of many that was wrong. `status` and `code` as in `ApiError`."""

    status: int
    code: str
    message: str
    details: tuple[str, ...] = ()


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
