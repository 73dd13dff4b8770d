"""Starting the code of a run: in a context of its own, noted whenever it is on the CPU, with its lines kept until its end."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING

from detent.errors import DetentError
from detent.protocol.attempts import AttemptOutcome
from detent.protocol.backend import WorkerBackend
from detent.protocol.environments import Environment
from detent.protocol.status import RunStatus
from detent.sdk import scope as run_scope
from detent.sdk.context import Context
from detent.sdk.registry import registry
from detent.worker.attempt import Attempt
from detent.worker.capture import Capture
from detent.worker.durable_calls import DurableCalls
from detent.worker.executor import Executor
from detent.worker.final_hooks import Ending, FinalHooks
from detent.worker.hook_scope import HookScope
from detent.worker.log_lines import RANKS, LogLines
from detent.worker.note import Note, Noted, OnCpu
from detent.worker.overrun import SIGNAL_GRACE
from detent.worker.path import HOOKS, Line, Path, here
from detent.worker.run_scope import AttemptScope
from detent.worker.settings import WorkerSettings
from detent.worker.threads import NotedExecutor, Threads

if TYPE_CHECKING:
    from detent.worker.telemetry import RunTelemetry

now = time.monotonic

Ended = Callable[[Attempt, AttemptOutcome | None], None]


class Launcher:
    """What all runs of a process share. `ended` is told each attempt's end, with None when it came to no outcome."""

    def __init__(
        self,
        settings: WorkerSettings,
        backend: WorkerBackend,
        note: Note,
        capture: Capture,
        ended: Ended,
        telemetry: RunTelemetry | None,
    ) -> None:
        self._settings, self._note, self._capture, self._ended = settings, note, capture, ended
        self._telemetry = telemetry
        self._loop = asyncio.get_running_loop()
        self._threads = Threads(note)
        self.calls = DurableCalls(backend)
        self._executor = Executor(settings, self.calls, self._threads)
        self._rank = RANKS.get(settings.log_level, 1)
        self.lines = LogLines(backend, self._loop)
        self.environment: Environment | None = None

    def install(self) -> None:
        """Have what runs start themselves (tasks, `to_thread`) noted under their name, too."""
        self._loop.set_task_factory(partial(task_of_run, self._note))  # type: ignore[arg-type]  # typeshed lacks context=
        self._loop.set_default_executor(NotedExecutor(self._note, self._threads))

    def close(self) -> None:
        self._loop.set_task_factory(None)
        self._threads.close()

    def start(self, attempt: Attempt) -> None:
        """Start the code of a run from its top."""
        self.describe(attempt)
        scope = self._scope_of(attempt)
        attempt.task = self._drive(self._execute(attempt, scope), scope, attempt.path)

    def call_hooks(self, attempt: Attempt, ending: Ending, number: int) -> None:
        """Start the final hooks of a run. *number* tells the lines of one try from those of another."""
        attempt.record = attempt.record or self._note.acquire()
        self._note.describe(
            attempt.record,
            Noted(run_id=attempt.run_id, task_id=attempt.task_id, fence=attempt.fence, deadline=None),
        )
        scope = HookScope(self._scope_of(attempt))
        attempt.hooking = self._drive(self._call_hooks(attempt, scope, ending), scope, Path(f"{HOOKS}{number}/"))

    async def _call_hooks(self, attempt: Attempt, scope: HookScope, ending: Ending) -> None:
        task = registry.get(attempt.task_id)
        if task is None:
            return
        try:
            # What runs on beside them waits for the hooks of its cancel no longer than this.
            async with asyncio.timeout(SIGNAL_GRACE if ending.status is RunStatus.CANCELED else None):
                await FinalHooks(scope, task, self._threads, ending).call()
        except TimeoutError:
            scope.log("error", f"on_cancel was given up: it took longer than {SIGNAL_GRACE:g} s")
        self._capture.end(scope)
        await self.lines.flushed(attempt.last_line)
        await self.calls.end_hooks(attempt.holder)

    def _drive(self, code: Coroutine[object, object, None], scope: AttemptScope, path: Path) -> asyncio.Task[None]:
        context = contextvars.Context()
        context.run(run_scope.enter, scope)
        if self._telemetry is not None:
            context.run(self._telemetry.enter, scope.attempt, self.environment)
        coroutine: OnCpu[None] = OnCpu(code, scope.attempt, self._note, Line(path))
        return asyncio.Task(coroutine, loop=self._loop, context=context)

    def _scope_of(self, attempt: Attempt) -> AttemptScope:
        return AttemptScope(
            attempt,
            calls=self.calls,
            lines=self.lines,
            log_rank=self._rank,
            note=self._note,
            loop=self._loop,
            context=self._context_of,
            telemetry=self._telemetry,
        )

    def describe(self, attempt: Attempt) -> None:
        """Write down which run this is, and until when it may take."""
        attempt.record = attempt.record or self._note.acquire()
        most = attempt.lease.max_duration
        self._note.describe(
            attempt.record,
            Noted(
                run_id=attempt.run_id,
                task_id=attempt.task_id,
                fence=attempt.fence,
                deadline=None if most is None else now() - attempt.elapsed + most,
            ),
        )

    def forget(self, attempt: Attempt) -> None:
        self._note.release(attempt.record)
        attempt.record = 0

    def stand(self, attempt: Attempt) -> None:
        """The run stands in a wait: it is to blame for nothing, nor is its thread."""
        self._note.pause(attempt.record)
        if attempt.thread is not None:
            self._note.enter_thread(attempt.thread, 0)

    def go_on(self, attempt: Attempt) -> None:
        """The wait is over."""
        self.describe(attempt)
        if attempt.thread is not None:
            self._note.enter_thread(attempt.thread, attempt.record)

    async def _execute(self, attempt: Attempt, scope: AttemptScope) -> None:
        outcome: AttemptOutcome | None = None
        try:
            outcome = await self._executor.execute(attempt, scope)
            attempt.is_done = True
            self._capture.end(scope)
            if self._telemetry is not None:
                self._telemetry.end(attempt, outcome)
            await scope.flush_metadata()
            if self.lines.has_unsent(attempt) and not attempt.is_dropped:
                await self.lines.flushed(attempt.last_line)
            if attempt.suspending is not None:
                # A suspended run cannot end: it is resumed for that, so whether it is must be known.
                await asyncio.shield(attempt.suspending)
        finally:
            self._ended(attempt, outcome)

    def _context_of(self, attempt: Attempt) -> Context:
        task = registry.get(attempt.task_id)
        if task is None:
            raise DetentError(f'task "{attempt.task_id}" of run {attempt.run_id} is not in this worker any more')
        assert self.environment is not None  # told before anything is leased
        return Context.from_lease(
            attempt.lease,
            task,
            environment=self.environment,
            project=self._settings.project,
            machine=attempt.machine,
        )


def task_of_run(
    note: Note,
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[object, object, object],
    *,
    context: contextvars.Context | None = None,
    **options: object,
) -> asyncio.Task[object]:
    """Make the tasks that a run's own code starts drive it under the run's name, each along a path of its own."""
    scope = run_scope.current() if context is None else run_scope.current_in(context)
    if not isinstance(scope, AttemptScope) or isinstance(coroutine, OnCpu):
        return asyncio.Task(coroutine, loop=loop, context=context, **options)  # type: ignore[arg-type]
    attempt, parent = scope.attempt, here()
    path = (attempt.path if parent is None else parent.path).child(_name(coroutine))
    task: asyncio.Task[object] = asyncio.Task(
        OnCpu(coroutine, attempt, note, Line(path)),
        loop=loop,
        context=context,
        **options,  # type: ignore[arg-type]
    )
    attempt.children.add(task)
    task.add_done_callback(attempt.child_ended)
    return task


def _name(coroutine: Coroutine[object, object, object]) -> str:
    return str(getattr(coroutine, "__qualname__", type(coroutine).__name__))
