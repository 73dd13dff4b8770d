"""Idempotency keys: those of runs and batches, and those of waits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from detent.protocol.limits import WAIT_KEY_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """`key` is the stored hash (64 hex digits); `user_key` and `scope` are what the user gave, for display."""

    key: str
    user_key: str
    scope: str
    ttl: timedelta = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitKey:
    """An idempotency key of a token or of a wait for a moment, as the user gave it. Without `ttl` it is kept for ever.

    Both share one name space in an environment: what has a key answers everybody who comes with it.
    """

    key: str
    ttl: timedelta | None = None

    def __post_init__(self) -> None:
        size = len(self.key.encode())
        if not 0 < size <= WAIT_KEY_LIMIT:
            raise ValueError(f"an idempotency key of a wait has 1 to {WAIT_KEY_LIMIT:,} bytes, not {size:,}; hash a longer one")
