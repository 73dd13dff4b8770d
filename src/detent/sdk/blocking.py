"""The `.sync` twins: one line a method, `self.trigger = blocking(task.trigger)`.

Inside a `def` task a call is carried out on its runner's loop; elsewhere on one background loop of the process (`portal.py`).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from detent.errors import BlockingCallError, RunCancelledError
from detent.sdk import scope as run_scope

if TYPE_CHECKING:
    from asyncio import Task

    from detent.protocol.ids import RunId
    from detent.sdk.scope import RunScope

P = ParamSpec("P")
R = TypeVar("R")


def blocking(call: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """Return the blocking twin of *call*. On a running event loop it raises `BlockingCallError`."""
    name = getattr(call, "__name__", repr(call))
    label = getattr(getattr(call, "__self__", None), "label", "")

    @functools.wraps(call)
    def twin(*args: P.args, **kwargs: P.kwargs) -> R:
        if is_on_loop():
            raise BlockingCallError(f"{label}.sync.{name}".lstrip("."))
        present = run_scope.current()
        if present is not None:
            return _carry_out_in_run(present, call(*args, **kwargs))
        from detent.sdk.portal import portal

        return portal().carry_out(call(*args, **kwargs))

    return twin


def is_on_loop() -> bool:
    """Return whether the calling thread runs an event loop."""
    # Where asyncio was never imported there is none: `import detent` alone does not load it.
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def interrupt(run_id: RunId) -> None:
    """Make the blocking calls that a run's threads stand in raise `RunCancelledError`. For the worker, on its loop."""
    for task in tuple(_blocked.get(run_id, ())):
        task.cancel()


# Kept on the loop's own thread: a call that is not in here yet has not begun, and finds the run refused when it does.
_blocked: dict[RunId, set[Task[Any]]] = {}


def _carry_out_in_run(present: RunScope, coroutine: Coroutine[Any, Any, R]) -> R:
    from asyncio import run_coroutine_threadsafe
    from concurrent.futures import CancelledError

    run_id = present.context.run.id
    # The task is made in a copy of this thread's context: it finds the same run.
    future = run_coroutine_threadsafe(_noted(run_id, coroutine), present.loop)
    try:
        return future.result()
    except CancelledError as error:
        raise RunCancelledError(run_id, present.signal.reason) from error
    except BaseException:
        future.cancel()
        raise


async def _noted(run_id: RunId, coroutine: Coroutine[Any, Any, R]) -> R:
    from asyncio import current_task

    task = current_task()
    assert task is not None
    tasks = _blocked.setdefault(run_id, set())
    tasks.add(task)
    try:
        return await coroutine
    finally:
        tasks.discard(task)
        if not tasks:
            _blocked.pop(run_id, None)
