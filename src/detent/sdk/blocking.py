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
    from concurrent.futures import Future

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
            raise BlockingCallError(f"{label}.sync.{name}".lstrip("."), f"{label}.{name}(…)".lstrip("."))
        return carry_out(call(*args, **kwargs))

    return twin


def carry_out(coroutine: Coroutine[Any, Any, R], errands: Errands | None = None) -> R:
    """Return what *coroutine* comes to, on the loop of the present run, or on that of the process where there is no run.

    Meanwhile the calling thread does the *errands* of a run's coroutine.
    """
    present = run_scope.current()
    if present is not None:
        return _carry_out_in_run(present, coroutine, errands)
    from detent.sdk.portal import portal

    return portal().carry_out(coroutine)


class Errands:
    """What a coroutine has done in the thread that waits for it: plain functions that belong there, and would block the loop."""

    def __init__(self) -> None:
        from queue import SimpleQueue

        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    async def do(self, work: Callable[[], R]) -> R:
        """Return what *work* returns in the waiting thread."""
        from asyncio import wrap_future
        from concurrent.futures import Future

        done: Future[R] = Future()

        def errand() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - handed to the coroutine that asked
                done.set_exception(error)
            else:
                done.set_result(result)

        self._queue.put(errand)
        return await wrap_future(done)

    def until(self, future: Future[R]) -> None:
        """Do them until *future* is done. What is no `Exception` ends the thread's code at once, as if it had called itself."""
        future.add_done_callback(lambda _: self._queue.put(None))
        while (errand := self._queue.get()) is not None:
            errand()


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


def _carry_out_in_run(present: RunScope, coroutine: Coroutine[Any, Any, R], errands: Errands | None) -> R:
    from concurrent.futures import CancelledError

    run_id = present.context.run.id
    future = present.carry_out(_noted(run_id, coroutine))
    try:
        if errands is not None:
            errands.until(future)
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
