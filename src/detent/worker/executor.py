"""One attempt as a pipeline: find the task, read the journal, decode the payload, call, encode the output.

Whatever happens on the way becomes an outcome; this is the boundary behind which user code may raise what it likes.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, cast

from detent.errors import (
    AbortTaskRunError,
    ApiError,
    JournalFullError,
    NonDeterminismError,
    OutOfMemoryError,
    StaleRunError,
)
from detent.protocol import run_error
from detent.protocol.attempts import AttemptOutcome, Broken, Failed, RanOutOfMemory, Succeeded
from detent.protocol.execution import Isolation
from detent.protocol.fence import Stale
from detent.protocol.run_error import ErrorCode
from detent.sdk.catching import SkipRetrying
from detent.sdk.hooks import HookKind, WaitInfo
from detent.sdk.registry import registry
from detent.worker import machines
from detent.worker.attempt import Attempt
from detent.worker.durable_calls import DurableCalls
from detent.worker.hook_calls import HookCalls, has_any, retry_in
from detent.worker.hook_scope import hooking
from detent.worker.journal import Journal
from detent.worker.path import HOOKS, Line, enter_thread
from detent.worker.run_scope import AttemptScope
from detent.worker.settings import WorkerSettings
from detent.worker.threads import Threads

if TYPE_CHECKING:
    from detent.sdk.definition import AnyTask

_RETRIED_REFUSALS = frozenset({408, 429})


class Executor:
    """Executes attempts; knows nothing of leases and slots."""

    def __init__(self, settings: WorkerSettings, calls: DurableCalls, threads: Threads) -> None:
        self._calls, self._threads = calls, threads
        self._settings = settings
        self._default_retry, self._is_retrying = settings.default_retry, settings.is_retrying

    async def execute(self, attempt: Attempt, scope: AttemptScope) -> AttemptOutcome:
        task = registry.get(attempt.task_id)
        if task is None:
            return _broken(attempt)
        name = machines.name_of(attempt.lease, self._settings)
        if name is not None and attempt.machine is None and not scope.is_rehearsal:
            return _without_machine(attempt, name)
        try:
            await self._read_journal(attempt)
            payload = task.decode_payload(attempt.lease.payload)
        except BaseException as error:  # noqa: BLE001 - validators are user code
            return self._ended_early(attempt, task, error, ErrorCode.TASK_INPUT)
        hooks = HookCalls(attempt, task, self._threads, payload)
        try:
            value = await self._wrapped(attempt, task, hooks, scope, payload)
        except BaseException as error:  # noqa: BLE001 - a task may raise anything, SystemExit included
            return await self._caught(attempt, task, hooks, scope, error)
        if isinstance(attempt.refusal, NonDeterminismError | JournalFullError):
            return self._failed(attempt, task, attempt.refusal)
        try:
            output = task.encode_output(value)
        except BaseException as error:  # noqa: BLE001 - serialisers are user code
            return self._ended_early(attempt, task, error, ErrorCode.TASK_OUTPUT)
        has_hooks = has_any(task, HookKind.ON_SUCCESS, HookKind.ON_COMPLETE)
        return Succeeded(holder=attempt.holder, output=output, has_hooks=has_hooks)

    async def _wrapped(
        self, attempt: Attempt, task: AnyTask, hooks: HookCalls, scope: AttemptScope, payload: object
    ) -> object:
        """Call the function inside of the middleware, after the hooks of its start."""
        value: object = None

        async def innermost() -> None:
            nonlocal value
            await hooks.call_all(HookKind.ON_START_ATTEMPT)
            value = await self._invoke(attempt, task, payload, scope)

        if not scope.is_rehearsal and has_any(task, HookKind.ON_WAIT, HookKind.ON_RESUME):
            scope.on_waiting = partial(_around_wait, hooks, scope)
        await hooks.wrapped(innermost)
        return value

    async def _read_journal(self, attempt: Attempt) -> None:
        if not attempt.lease.has_journal:
            return
        entries = await self._calls.read_journal(attempt.holder)
        if isinstance(entries, Stale):
            attempt.host.lost(attempt)
            raise StaleRunError(attempt.run_id)
        attempt.begin(Journal(attempt.run_id, attempt.attempt, entries))

    async def _invoke(self, attempt: Attempt, task: AnyTask, payload: object, scope: AttemptScope) -> object:
        if is_async(task):
            return await cast("Awaitable[object]", task.invoke(payload, scope.context, attempt.signal))
        context = scope.context
        return await self._in_thread(attempt, lambda: task.invoke(payload, context, attempt.signal))

    async def _in_thread(self, attempt: Attempt, work: Callable[[], object]) -> object:
        attempt.is_threaded = True
        own = contextvars.copy_context()

        def began(thread: int) -> None:
            attempt.thread = thread

        def in_line() -> object:
            enter_thread(Line(attempt.path))
            attempt.meter.enter_thread()
            try:
                return own.run(work)
            finally:
                enter_thread(None)

        future = self._threads.start(in_line, attempt.record, began)
        return await asyncio.wrap_future(future)

    async def _caught(
        self, attempt: Attempt, task: AnyTask, hooks: HookCalls, scope: AttemptScope, error: BaseException
    ) -> AttemptOutcome:
        """Fail as the task's policy says, or as its `catch_error` does."""
        if ran_out_of_memory(attempt, error):
            return _out_of_memory(attempt, task, error)
        is_asked = attempt.stop_reason is None and not scope.is_rehearsal and self._is_retrying
        if not is_asked or is_final(error) or not has_any(task, HookKind.CATCH_ERROR):
            return self._failed(attempt, task, error)
        default = self._retry_in(attempt, task, error)
        try:
            with hooking(scope, f"{HOOKS}{HookKind.CATCH_ERROR}/"):
                decision = await hooks.decide(error, task.retry or self._default_retry, default)
        except Exception as failure:  # noqa: BLE001 - catch_error is user code
            failure.__context__ = error
            return self._failed(attempt, task, failure, code=ErrorCode.CATCH_ERROR)
        if decision is None:
            return self._failed(attempt, task, error)
        if isinstance(decision, SkipRetrying) and decision.error is not None:
            error = decision.error
        return replace(self._failed(attempt, task, error), retry_in=retry_in(decision, attempt.attempt))

    def _ended_early(self, attempt: Attempt, task: AnyTask, error: BaseException, code: str) -> AttemptOutcome:
        """What an error before or after the function comes to."""
        if ran_out_of_memory(attempt, error):
            return _out_of_memory(attempt, task, error)
        return self._failed(attempt, task, error, code=code)

    def _failed(self, attempt: Attempt, task: AnyTask, error: BaseException, *, code: str = "") -> Failed:
        attempt.raised = error
        delay = None if code else self._retry_in(attempt, task, error)
        if isinstance(error, NonDeterminismError):
            code = ErrorCode.NON_DETERMINISM
        return Failed(
            holder=attempt.holder,
            error=run_error.from_exception(error, code=code),
            retry_in=delay,
            has_hooks=has_any(task, HookKind.ON_FAILURE, HookKind.ON_COMPLETE),
        )

    def _retry_in(self, attempt: Attempt, task: AnyTask, error: BaseException) -> timedelta | None:
        if not self._is_retrying or is_final(error):
            return None
        retry = task.retry or self._default_retry
        most = attempt.lease.max_attempts or retry.max_attempts
        return retry.delay_after(attempt.attempt) if attempt.attempt < most else None


async def _around_wait(hooks: HookCalls, scope: AttemptScope, kind: HookKind, about: WaitInfo, operation: str) -> None:
    with hooking(scope, f"{operation}/{kind}/"):
        await hooks.call_all(kind, wait=about)


def is_async(task: AnyTask) -> bool:
    """Whether the task's function is `async def`, whatever its isolation."""
    if task.isolation is Isolation.PROCESS:
        return inspect.iscoroutinefunction(task.__wrapped__)
    return task.isolation is Isolation.ASYNC


def is_final(error: BaseException) -> bool:
    """Whether trying again is pointless, whatever attempts are left."""
    if isinstance(error, ApiError):
        return 400 <= error.status < 500 and error.status not in _RETRIED_REFUSALS
    return isinstance(error, AbortTaskRunError | NonDeterminismError | JournalFullError)


def ran_out_of_memory(attempt: Attempt, error: BaseException) -> bool:
    """Whether an attempt failed for want of memory: it says so itself, or it was held to a machine and found none left there."""
    if attempt.confinement is None:
        return isinstance(error, OutOfMemoryError)
    attempt.confinement.end()
    return attempt.confinement.has_killed or _is_about_memory(error)


def _is_about_memory(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup((MemoryError, OutOfMemoryError)) is not None
    return isinstance(error, MemoryError | OutOfMemoryError)


def _out_of_memory(attempt: Attempt, task: AnyTask, error: BaseException) -> RanOutOfMemory:
    attempt.raised = error
    told = run_error.from_exception(error, code=ErrorCode.OUT_OF_MEMORY)
    if attempt.confinement is not None and attempt.machine is not None and not isinstance(error, OutOfMemoryError):
        # What Python says then is nothing, or what became of a subprocess.
        told = replace(told, message=machines.explain(attempt.machine.name, attempt.machine.memory_gb))
    has_hooks = has_any(task, HookKind.ON_FAILURE, HookKind.ON_COMPLETE)
    return RanOutOfMemory(holder=attempt.holder, error=told, has_hooks=has_hooks)


def _without_machine(attempt: Attempt, name: str) -> Broken:
    error = run_error.internal(
        ErrorCode.MACHINE_NOT_FOUND,
        f'run {attempt.run_id}: its worker knows no machine "{name}"; '
        "name it in the config of the project (machines=), or replay the run on another",
    )
    return Broken(holder=attempt.holder, error=error)


def _broken(attempt: Attempt) -> Broken:
    error = run_error.internal(
        ErrorCode.TASK_NOT_FOUND,
        f'run {attempt.run_id}: task "{attempt.task_id}" is not in this worker; '
        "deploy the code that defines it and replay the run",
    )
    return Broken(holder=attempt.holder, error=error)
