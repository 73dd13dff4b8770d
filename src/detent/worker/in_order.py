"""`asyncio.as_completed` in a runner: it starts what it is given in the order given.

The standard one starts coroutines in the order of a set, so by their addresses: a replay would take one for another.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable
from typing import Any


def install() -> None:
    """Replace it for the code that is imported from here on."""
    asyncio.as_completed = asyncio.tasks.as_completed = started_in_order(asyncio.tasks.as_completed)


def started_in_order(as_completed: Callable[..., Any]) -> Callable[..., Any]:
    """Return *as_completed* such that it is given tasks, made one after the other.

    >>> started_in_order(asyncio.as_completed).__name__
    'as_completed'
    """

    @functools.wraps(as_completed)
    def ordered(fs: Iterable[Any], **options: Any) -> Any:
        if asyncio.isfuture(fs) or asyncio.iscoroutine(fs):
            return as_completed(fs, **options)  # which says what is wrong
        return as_completed([asyncio.ensure_future(f) for f in fs], **options)

    return ordered
