"""The `.sync` twins: one line a method, `self.trigger = blocking(task.trigger)`.

Inside a `def` task a call is carried out on its runner's loop; elsewhere on one background loop of the process, the portal.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import functools
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from detent.errors import BlockingCallError, RunCancelledError
from detent.protocol.ids import RunId
from detent.sdk import scope as run_scope
from detent.sdk.scope import RunScope

P = ParamSpec("P")
R = TypeVar("R")

_CLOSING_SECONDS = 5.0


def blocking(call: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """Return the blocking twin of *call*. On a running event loop it raises `BlockingCallError`."""
    name = getattr(call, "__name__", repr(call))
    label = getattr(getattr(call, "__self__", None), "label", "")

    @functools.wraps(call)
    def twin(*args: P.args, **kwargs: P.kwargs) -> R:
        if asyncio._get_running_loop() is not None:
            raise BlockingCallError(f"{label}.sync.{name}".lstrip("."))
        present = run_scope.current()
        if present is None:
            return portal().carry_out(call(*args, **kwargs))
        return _carry_out_in_run(present, call(*args, **kwargs))

    return twin


def interrupt(run_id: RunId) -> None:
    """Make the blocking calls that a run's threads stand in raise `RunCancelledError`. For the worker."""
    for future in tuple(_blocked.get(run_id, ())):
        future.cancel()


_blocked: dict[RunId, set[concurrent.futures.Future[Any]]] = {}


def _carry_out_in_run(present: RunScope, coroutine: Coroutine[Any, Any, R]) -> R:
    run_id = present.context.run.id
    # The task is made in a copy of this thread's context: it finds the same run.
    future = asyncio.run_coroutine_threadsafe(coroutine, present.loop)
    _blocked.setdefault(run_id, set()).add(future)
    try:
        return future.result()
    except concurrent.futures.CancelledError as error:
        raise RunCancelledError(run_id, present.signal.reason) from error
    except BaseException:
        future.cancel()
        raise
    finally:
        _forget(run_id, future)


def _forget(run_id: RunId, future: concurrent.futures.Future[Any]) -> None:
    futures = _blocked[run_id]
    futures.discard(future)
    if not futures:
        _blocked.pop(run_id, None)


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
        """End the loop; what was opened on it is closed by its own guard (`connection.py`)."""
        if self.pid == os.getpid() and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CLOSING_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
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
