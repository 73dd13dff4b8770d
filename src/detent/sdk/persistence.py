"""Asking again after a lost reply: every call to a backend may be repeated without doubling anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from detent.errors import ApiConnectionError

T = TypeVar("T")

_PAUSES = (0.05, 0.2, 0.8, 2.0)
"""Seconds before each further try: a database that restarts is back within them."""


async def persistently(call: Callable[[], Awaitable[T]]) -> T:
    """Return what *call* gives, asked again a few times when no answer came; then raise the `ApiConnectionError`."""
    from asyncio import sleep

    for pause in _PAUSES:
        try:
            return await call()
        except ApiConnectionError:
            await sleep(pause)
    return await call()
