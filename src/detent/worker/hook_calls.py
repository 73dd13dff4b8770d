"""Calling hooks: those of all tasks and those of the task, in their order, each in a thread when it is written as `def`."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from detent.errors import MiddlewareError
from detent.protocol.moment import When
from detent.protocol.retry import Retry
from detent.sdk import scope as run_scope
from detent.sdk.catching import Decision, RetryAt, RetryWith, SkipRetrying, due
from detent.sdk.hooks import Hook, HookKind, global_hooks
from detent.worker.attempt import Attempt
from detent.worker.path import Line, enter_thread, here
from detent.worker.threads import Threads

if TYPE_CHECKING:
    from detent.sdk.definition import AnyTask

Rest = Callable[[], Awaitable[None]]


def hooks_of(task: AnyTask, kind: HookKind) -> tuple[Hook, ...]:
    """Return the hooks in the order in which they are called: the nearest first for errors, else last."""
    if kind is HookKind.CATCH_ERROR:
        return task.hooks.of(kind) + global_hooks.of(kind)
    return global_hooks.of(kind) + task.hooks.of(kind)


def has_any(task: AnyTask, *kinds: HookKind) -> bool:
    return any(hooks_of(task, kind) for kind in kinds)


class HookCalls:
    """The hooks of one attempt, called in the scope that is current."""

    def __init__(self, attempt: Attempt, task: AnyTask, threads: Threads, payload: object) -> None:
        self._attempt, self._task, self._threads, self._payload = attempt, task, threads, payload

    async def call_all(self, kind: HookKind, **given: object) -> None:
        """Call the hooks of a kind one after the other; the first that raises is the last."""
        for hook in hooks_of(self._task, kind):
            await self.call(hook, **given)

    async def call(self, hook: Hook, **given: object) -> object:
        arguments = self._arguments() | given
        if hook.is_async:
            return await cast("Awaitable[object]", hook.call(arguments))
        returned = await self._in_thread(lambda: hook.call(arguments))
        # A lambda may pass the call on to an `async def`.
        return await returned if isinstance(returned, Awaitable) else returned

    def _arguments(self) -> dict[str, object]:
        return {
            "payload": self._payload,
            "ctx": run_scope.require("a hook").context,
            "signal": self._attempt.signal,
            "task": self._task,
        }

    async def _in_thread(self, work: Callable[[], object]) -> object:
        own = contextvars.copy_context()
        present = here()
        line = Line(self._attempt.path if present is None else present.path)

        def in_line() -> object:
            enter_thread(line)
            try:
                return own.run(work)
            finally:
                enter_thread(None)

        return await asyncio.wrap_future(self._threads.start(in_line, self._attempt.record, lambda number: None))

    # ---- middleware ----

    async def wrapped(self, rest: Rest) -> None:
        """Do *rest* inside all middleware, the first one outermost. Raises `MiddlewareError` for one that does not go on."""
        for hook in reversed(hooks_of(self._task, HookKind.MIDDLEWARE)):
            rest = self._around(hook, rest)
        await rest()

    def _around(self, hook: Hook, rest: Rest) -> Rest:
        async def wrapping() -> None:
            calls = 0

            async def next_() -> None:
                nonlocal calls
                calls += 1
                if calls > 1:
                    raise MiddlewareError(hook.name, "called next() twice")
                await rest()

            await self.call(hook, next=next_)
            if not calls:
                raise MiddlewareError(hook.name, "returned without calling next()")

        return wrapping

    # ---- catch_error ----

    async def decide(self, error: BaseException, retry: Retry, delay: timedelta | None) -> Decision | None:
        """Ask what shall come of an error: the first decision counts."""
        given = {"error": error, "retry": retry, "retry_at": due(delay), "retry_delay": delay}
        for hook in hooks_of(self._task, HookKind.CATCH_ERROR):
            decision = await self.call(hook, **given)
            if isinstance(decision, SkipRetrying | RetryAt | RetryWith):
                return decision
            if decision is not None:
                raise TypeError(f"{hook} returned {decision!r}; return SkipRetrying, RetryAt, RetryWith, or None")
        return None


def retry_in(decision: SkipRetrying | RetryAt | RetryWith, attempt: int) -> When | None:
    """Return when the decision has the run tried again; None is never."""
    match decision:
        case SkipRetrying():
            return None
        case RetryAt():
            return decision.moment
        case RetryWith():
            return decision.retry.delay_after(attempt) if attempt < decision.retry.max_attempts else None
