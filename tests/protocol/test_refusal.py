"""A refusal becomes the error of its status."""

from __future__ import annotations

import pytest

from detent import errors
from detent.protocol.refusal import Refused, to_error


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadRequestError), (401, errors.AuthenticationError), (403, errors.PermissionDeniedError),
        (404, errors.NotFoundError), (409, errors.ConflictError), (418, errors.BadRequestError),
        (422, errors.UnprocessableEntityError), (429, errors.RateLimitError), (500, errors.InternalServerError),
        (502, errors.InternalServerError), (503, errors.ApiConnectionError),
    ],
)  # fmt: skip
def test_status_names_the_error(status: int, kind: type[errors.ApiError]) -> None:
    error = to_error(Refused(status=status, code="why", message="no", details=("first", "second")))

    assert type(error) is kind
    assert (error.code, error.details, str(error)) == ("why", ("first", "second"), "no; first; second")
