"""What a task may know about its own run: `Context`, and the `CancelSignal` that asks it to stop."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from detent.errors import RunCancelledError
from detent.sdk import scope

if TYPE_CHECKING:
    import asyncio

    from detent.protocol.environments import Environment
    from detent.protocol.ids import BatchId, RunId
    from detent.protocol.leases import Lease


class ContextTask(Protocol):
    """What `Context.from_lease` reads of a task."""

    @property
    def id(self) -> str: ...
    @property
    def file_path(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchContext:
    """The batch that the run is an item of."""

    id: BatchId


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunContext:
    """The run as it was when the attempt began. Times are aware, `priority` and `max_duration` are seconds."""

    id: RunId
    tags: tuple[str, ...]
    is_test: bool
    is_replay: bool
    created_at: datetime
    started_at: datetime
    """When the first attempt began."""
    idempotency_key: str | None
    """The key as the user gave it."""
    idempotency_key_scope: str | None
    """`"run"`, `"attempt"` or `"global"`; None: it has no key."""
    max_attempts: int | None
    max_duration: float | None
    priority: float
    concurrency_key: str | None
    version: str
    parent_task_run_id: RunId | None
    root_task_run_id: RunId | None
    replay_of: RunId | None
    batch: BatchContext | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskContext:
    """The task that the run is of."""

    id: str
    file_path: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttemptContext:
    """One execution of the run."""

    number: int
    """1 for the first; a replay after a crash keeps the number."""
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QueueContext:
    """The queue that the run waited in."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProjectContext:
    """The project, as its config names it."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MachineContext:
    """What the attempt may take, in cores and units of 1024³ bytes. Held only where its task has `isolation="process"`."""

    name: str
    cpu: float
    memory_gb: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Context:
    """Everything a task may know about its run. Declare a parameter `ctx: Context`, or call `Context.current()`.

    Example::

        @task
        async def charge(order: Order, ctx: Context) -> Receipt:
            logger.info("charging", attempt=ctx.attempt.number, run=ctx.run.id)
    """

    run: RunContext
    task: TaskContext
    attempt: AttemptContext
    queue: QueueContext
    environment: Environment
    """The one that the worker serves."""
    project: ProjectContext
    machine: MachineContext | None = None
    """None: the run has no limit."""
    deployment: None = None
    """Always None yet: workers are not deployed."""

    @staticmethod
    def current() -> Context:
        """Return the context of the run that the calling code belongs to. Raises `OutsideRunError` outside one."""
        return scope.require("Context.current()").context

    @classmethod
    def from_lease(
        cls,
        lease: Lease,
        task: ContextTask,
        *,
        environment: Environment,
        project: str,
        machine: MachineContext | None = None,
    ) -> Context:
        """Make the context of the attempt that *lease* gives."""
        return cls(
            run=_run_of(lease),
            task=TaskContext(id=task.id, file_path=task.file_path),
            attempt=AttemptContext(number=lease.attempt, started_at=datetime.now(UTC)),
            queue=QueueContext(name=lease.queue),
            environment=environment,
            project=ProjectContext(id=project),
            machine=machine,
        )


def _run_of(lease: Lease) -> RunContext:
    return RunContext(
        id=lease.run_id,
        tags=lease.tags,
        is_test=lease.is_test,
        is_replay=lease.replay_of is not None,
        created_at=lease.created_at,
        started_at=lease.started_at,
        idempotency_key=lease.idempotency_key,
        idempotency_key_scope=lease.idempotency_key_scope,
        max_attempts=lease.max_attempts,
        max_duration=lease.max_duration,
        priority=lease.priority,
        concurrency_key=lease.concurrency_key,
        version=lease.version,
        parent_task_run_id=lease.parent_run_id,
        root_task_run_id=lease.root_run_id,
        replay_of=lease.replay_of,
        batch=None if lease.batch_id is None else BatchContext(id=lease.batch_id),
    )


class CancelSignal:
    """Tells a task that its run was cancelled or ran out of time. Any thread may ask, and may trip it.

    A task that declares a parameter `signal: CancelSignal` has 30 s after a cancel to end by itself.

    Example::

        @task
        def shrink(folder: str, signal: CancelSignal) -> int:
            for count, image in enumerate(images_in(folder)):
                signal.raise_if_cancelled()
                shrink_one(image)
            return count
    """

    __slots__ = ("_reason", "_run_id", "_waiters")

    def __init__(self, run_id: str = "") -> None:
        self._run_id = run_id
        self._reason: str | None = None
        # Only ever appended to and removed from, each of which is atomic: no lock, and no event a run that nobody waits for.
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def is_set(self) -> bool:
        """Return whether the run should stop."""
        return self._reason is not None

    @property
    def reason(self) -> str:
        """Why the run should stop; empty while it should not."""
        return self._reason or ""

    def raise_if_cancelled(self) -> None:
        """Raise `RunCancelledError` when the run should stop; else do nothing."""
        if self._reason is not None:
            raise RunCancelledError(self._run_id, self._reason)

    async def wait(self) -> None:
        """Return when the run should stop, at once if it already should."""
        import asyncio

        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        entry = (loop, waiter)
        self._waiters.append(entry)
        try:
            if self._reason is None:
                await waiter
        finally:
            self._waiters.remove(entry)

    def trip(self, reason: str) -> None:
        """Ask the run to stop; only the first reason counts. For the worker."""
        if self._reason is None:
            self._reason = reason
        for loop, waiter in tuple(self._waiters):
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
