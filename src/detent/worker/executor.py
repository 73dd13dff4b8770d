"""One attempt as a pipeline: find the task, read the journal, decode the payload, call, encode the output.

Whatever happens on the way becomes an outcome; this is the boundary behind which user code may raise what it likes.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, cast

from detent.errors import AbortTaskRunError, ApiError, JournalFullError, NonDeterminismError, StaleRunError
from detent.protocol import run_error
from detent.protocol.models import AttemptOutcome, Broken, Failed, Isolation, Stale, Succeeded
from detent.protocol.run_error import ErrorCode
from detent.sdk.registry import registry
from detent.worker.attempt import Attempt
from detent.worker.durable_calls import DurableCalls
from detent.worker.journal import Journal
from detent.worker.path import Line, enter_thread
from detent.worker.settings import WorkerSettings
from detent.worker.threads import Threads

if TYPE_CHECKING:
    from detent.sdk.context import Context
    from detent.sdk.definition import AnyTask

_RETRIED_REFUSALS = frozenset({408, 429})


class Scope(Protocol):
    @property
    def context(self) -> Context: ...


class Executor:
    """Executes attempts; knows nothing of leases and slots."""

    def __init__(self, settings: WorkerSettings, calls: DurableCalls, threads: Threads) -> None:
        self._calls, self._threads = calls, threads
        self._default_retry, self._is_retrying = settings.default_retry, settings.is_retrying

    async def execute(self, attempt: Attempt, scope: Scope) -> AttemptOutcome:
        task = registry.get(attempt.task_id)
        if task is None:
            return _broken(attempt)
        try:
            await self._read_journal(attempt)
            payload = task.decode_payload(attempt.lease.payload)
        except BaseException as error:  # noqa: BLE001 - validators are user code
            return self._failed(attempt, task, error, code=ErrorCode.TASK_INPUT)
        try:
            value = await self._invoke(attempt, task, payload, scope)
        except BaseException as error:  # noqa: BLE001 - a task may raise anything, SystemExit included
            return self._failed(attempt, task, error)
        if isinstance(attempt.refusal, NonDeterminismError | JournalFullError):
            return self._failed(attempt, task, attempt.refusal)
        try:
            output = task.encode_output(value)
        except BaseException as error:  # noqa: BLE001 - serialisers are user code
            return Failed(
                holder=attempt.holder,
                error=run_error.from_exception(error, code=ErrorCode.TASK_OUTPUT),
                retry_in=None,
            )
        return Succeeded(holder=attempt.holder, output=output)

    async def _read_journal(self, attempt: Attempt) -> None:
        if not attempt.lease.has_journal:
            return
        entries = await self._calls.read_journal(attempt.holder)
        if isinstance(entries, Stale):
            attempt.host.lost(attempt)
            raise StaleRunError(attempt.run_id)
        attempt.begin(Journal(attempt.run_id, attempt.attempt, entries))

    async def _invoke(self, attempt: Attempt, task: AnyTask, payload: object, scope: Scope) -> object:
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
            try:
                return own.run(work)
            finally:
                enter_thread(None)

        future = self._threads.start(in_line, attempt.record, began)
        return await asyncio.wrap_future(future)

    def _failed(self, attempt: Attempt, task: AnyTask, error: BaseException, *, code: str = "") -> AttemptOutcome:
        retry_in = None if code else self._retry_in(attempt, task, error)
        if isinstance(error, NonDeterminismError):
            code = ErrorCode.NON_DETERMINISM
        return Failed(holder=attempt.holder, error=run_error.from_exception(error, code=code), retry_in=retry_in)

    def _retry_in(self, attempt: Attempt, task: AnyTask, error: BaseException) -> timedelta | None:
        if not self._is_retrying or is_final(error):
            return None
        retry = task.retry or self._default_retry
        most = attempt.lease.max_attempts or retry.max_attempts
        return retry.delay_after(attempt.attempt) if attempt.attempt < most else None


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


def _broken(attempt: Attempt) -> Broken:
    error = run_error.internal(
        ErrorCode.TASK_NOT_FOUND,
        f'run {attempt.run_id}: task "{attempt.task_id}" is not in this worker; '
        "deploy the code that defines it and replay the run",
    )
    return Broken(holder=attempt.holder, error=error)
