"""Asking until there is an answer: a worker outlives its database's absence."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import ParamSpec, TypeVar

from detent.errors import ApiConnectionError

P = ParamSpec("P")
R = TypeVar("R")


def pauses(first: float = 0.05, longest: float = 3.0) -> Iterator[float]:
    """Yield growing pauses, jittered so that many workers do not come back in step."""
    pause = first
    while True:
        yield pause * random.uniform(0.7, 1.3)
        pause = min(longest, pause * 2)


def persistently(call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[object, object, R]]:
    """Return *call* repeated for as long as its backend is out of reach. Only for what may be repeated."""

    async def asked(*args: P.args, **kwargs: P.kwargs) -> R:
        for pause in pauses():
            try:
                return await call(*args, **kwargs)
            except ApiConnectionError:
                await asyncio.sleep(pause)
        raise AssertionError("pauses never end")

    return asked
