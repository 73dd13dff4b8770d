"""An event loop in a thread of its own, for blocking callers that have none. One a process, re-made after a fork."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from detent.sdk.connection import close_here

R = TypeVar("R")

_CLOSING_SECONDS = 5.0


class Portal:
    """An event loop in a thread of its own, for callers that have none."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="detent-portal", daemon=True)
        self._thread.start()

    def carry_out(self, coroutine: Coroutine[Any, Any, R]) -> R:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Close what was opened on the loop, and end it."""
        if self.pid == os.getpid() and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CLOSING_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(close_here())
            _cancel_all(self._loop)
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    rest = asyncio.all_tasks(loop)
    for task in rest:
        task.cancel()
    if rest:
        loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))


_portal: Portal | None = None
_portal_lock = threading.Lock()


def portal() -> Portal:
    """Return this process's portal; a forked child makes its own."""
    global _portal
    with _portal_lock:
        if _portal is None or _portal.pid != os.getpid():
            _portal = Portal()
        return _portal


def close_portal() -> None:
    """End the background loop and close what was opened on it; the next blocking call starts another."""
    global _portal
    with _portal_lock:
        ended, _portal = _portal, None
    if ended is not None:
        ended.close()


def _forget_inherited_lock() -> None:
    global _portal_lock
    _portal_lock = threading.Lock()


atexit.register(close_portal)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited_lock)
