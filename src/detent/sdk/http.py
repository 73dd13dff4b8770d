"""Where the server is, and what its URLs look like."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detent.protocol.ids import WaitpointId

DEFAULT_API_URL = "http://localhost:8030"


def callback_url(token_id: WaitpointId, secret: str) -> str:
    """Return the address that completes a token with what is posted there. Nobody without the secret can."""
    return f"{_api_url()}/api/v1/waitpoints/tokens/{token_id}/callback/{secret}"


def _api_url() -> str:
    return (os.environ.get("DETENT_API_URL") or DEFAULT_API_URL).rstrip("/")
