"""Running a recorded run against today's code, to see whether it goes the same way. Nothing durable happens.

The run's function is called as by a replay and answered from the journal. It ends where the code asks for something that was not
recorded, stands where the run stands, or differs.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from detent.errors import ConfigError, NonDeterminismError, RunSuspended
from detent.protocol.attempts import Succeeded
from detent.protocol.backend import CallerBackend, WorkerBackend
from detent.protocol.batches import BatchChunk, ChunkTaken
from detent.protocol.environments import Environment
from detent.protocol.execution import Isolation
from detent.protocol.ids import RunId
from detent.protocol.journal import JournalEntry
from detent.protocol.leases import Lease
from detent.protocol.refusal import Refused
from detent.protocol.runs import RunRecord
from detent.protocol.triggering import Triggered
from detent.protocol.waits import Pending
from detent.sdk import scope as run_scope
from detent.sdk.context import Context
from detent.sdk.registry import registry
from detent.worker.attempt import Attempt
from detent.worker.durable_calls import DurableCalls
from detent.worker.executor import Executor
from detent.worker.journal import Journal, describe
from detent.worker.launcher import task_of_run
from detent.worker.log_lines import LogLines
from detent.worker.note import Note, OnCpu
from detent.worker.path import Line
from detent.worker.run_scope import AttemptScope
from detent.worker.settings import WorkerSettings
from detent.worker.threads import Threads

STILL_SECONDS = 0.5
"""Without a step of its tasks after which the code is taken to stand."""
PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What came of it. `difference` is empty when today's code goes the way that was recorded."""

    run_id: RunId
    recorded: int
    """Operations in the journal."""
    repeated: int
    """Operations that the code has asked for again."""
    end: str
    """Where the code was let go, in words."""
    difference: str = ""


async def rehearse(backend: WorkerBackend, settings: WorkerSettings, run_id: RunId) -> Rehearsal:
    """Run a run that is not over against the tasks that are loaded. Raises `ConfigError` when there is no such run or task."""
    (record,) = await backend.retrieve_runs([run_id])
    entries = await _entries(backend, run_id)
    if record is None:
        raise ConfigError(f"there is no run {run_id} in this environment")
    if entries is None:
        raise ConfigError(f"run {run_id} is {record.status.value}: what it had recorded went with its end")
    if registry.get(record.task_id) is None:
        raise ConfigError(f'run {run_id} is of task "{record.task_id}", which this code does not define')
    return await _Rehearsing(backend, settings, record, entries, await backend.retrieve_environment()).run()


async def _entries(backend: CallerBackend, run_id: RunId) -> list[JournalEntry] | None:
    entries: list[JournalEntry] = []
    while True:
        page = await backend.read_journal(run_id, after=entries[-1].number if entries else 0, limit=PAGE)
        if page is None:
            return None
        entries += page
        if len(page) < PAGE:
            return entries


class _Rehearsing:
    """The host of the one attempt."""

    def __init__(
        self,
        backend: WorkerBackend,
        settings: WorkerSettings,
        record: RunRecord,
        entries: Sequence[JournalEntry],
        environment: Environment,
    ) -> None:
        self._backend, self._settings, self._record, self._environment = backend, settings, record, environment
        self._loop = asyncio.get_running_loop()
        self._attempt = Attempt(_lease(record), Isolation.ASYNC, self, self._loop.time)
        self._attempt.begin(Journal(record.id, record.attempt, entries))
        self._recorded = len(self._attempt.journal.unasked)
        self._end: asyncio.Future[str] = self._loop.create_future()
        self._errands: list[asyncio.Task[None]] = []
        self._is_on_its_way = False

    async def run(self) -> Rehearsal:
        note, fd = Note.create()
        os.close(fd)
        calls, threads = DurableCalls(self._backend), Threads(note)
        scope = _RehearsalScope(
            self._attempt,
            calls=calls,
            lines=LogLines(self._backend, self._loop),
            log_rank=0,
            note=note,
            loop=self._loop,
            context=self._context_of,
            goes_on=self._goes_on,
        )
        context = contextvars.Context()
        context.run(run_scope.enter, scope)
        self._loop.set_task_factory(partial(task_of_run, note))  # type: ignore[arg-type]  # typeshed lacks context=
        code = self._execute(Executor(self._settings, calls, threads), scope)
        task = asyncio.Task(
            OnCpu(code, self._attempt, note, Line(self._attempt.path)), loop=self._loop, context=context
        )
        rehearsal = self._rehearsal(await self._end)
        self._attempt.evict()
        self._attempt.end_children()
        await asyncio.wait([task], timeout=STILL_SECONDS)
        self._loop.set_task_factory(None)
        threads.close()
        return rehearsal

    def _rehearsal(self, end: str) -> Rehearsal:
        unasked = self._attempt.journal.unasked
        return Rehearsal(
            run_id=self._record.id,
            recorded=self._recorded,
            repeated=self._recorded - len(unasked),
            end=end,
            difference=self._difference(unasked),
        )

    def _difference(self, unasked: Sequence[JournalEntry]) -> str:
        if isinstance(self._attempt.refusal, NonDeterminismError):
            return str(self._attempt.refusal)
        if not unasked or self._is_on_its_way:
            return ""
        first = unasked[0]
        what = describe(first.kind, first.fingerprint, first.operation)
        return f"run {self._record.id} recorded {what} as its operation {first.operation}, and the code does not ask for it"

    async def _execute(self, executor: Executor, scope: AttemptScope) -> None:
        outcome = await executor.execute(self._attempt, scope)
        if isinstance(outcome, Succeeded):
            self._finish("the function returns")
        else:
            self._finish(f"the function raises {outcome.error.name}")

    def _finish(self, end: str) -> None:
        if not self._end.done():
            self._end.set_result(end)

    def _goes_on(self, operation: str, asked: str) -> None:
        self._is_on_its_way = True
        self._finish(f"the code goes on with {asked} as operation {operation}, which is not recorded yet")

    def _context_of(self, attempt: Attempt) -> Context:
        task = registry.get(attempt.task_id)
        assert task is not None
        return Context.from_lease(attempt.lease, task, environment=self._environment, project=self._settings.project)

    # ---- what attempts say (`Host`) ----

    def stands(self, attempt: Attempt) -> None:
        self._loop.call_later(STILL_SECONDS, self._look, attempt.turns, context=contextvars.Context())

    def _look(self, turns: int) -> None:
        if self._attempt.turns != turns or not self._attempt.is_standing:
            self.stands(self._attempt)
            return
        self._finish(f"the code waits, as the run does, for {', '.join(sorted(self._attempt.standing))}")

    def run_errand(self, work: Coroutine[object, object, None]) -> None:
        self._errands.append(self._loop.create_task(work, context=contextvars.Context()))

    def suspended(self, attempt: Attempt) -> None:
        return

    def wants_back(self, attempt: Attempt) -> None:
        return

    def lost(self, attempt: Attempt) -> None:
        return

    def vanished(self, attempt: Attempt) -> None:
        return


class _RehearsalScope(AttemptScope):
    """Answers from the journal alone."""

    __slots__ = ("_tell",)

    is_rehearsal = True

    def __init__(self, attempt: Attempt, *, goes_on: Callable[[str, str], None], **parts: object) -> None:
        super().__init__(attempt, **parts)  # type: ignore[arg-type]
        self._tell = goes_on

    def capture(self, level: str, message: str, fields: dict[str, object] | None = None) -> None:
        return

    async def add_tags(self, tags: tuple[str, ...]) -> None:
        return

    async def give_chunk(self, chunk: BatchChunk, operation: str, *, wait: bool) -> ChunkTaken | Refused:
        return ChunkTaken(
            items=tuple(Triggered(run_id=request.run_id) for _, request in chunk.items),
            accepted=0,
            deduplicated=len(chunk.items),
            enqueued=len(chunk.items),
            expected=chunk.total,
            is_sealed=chunk.total is not None,
            wait=Pending(),
        )

    def _goes_on(self, operation: str, asked: str) -> None:
        self._tell(operation, asked)
        raise RunSuspended(self.attempt.run_id)


def _lease(record: RunRecord) -> Lease:
    """Return a lease such as the run's next replay will have."""
    now = datetime.now(UTC)
    return Lease(
        run_id=record.id,
        fence=0,
        attempt=record.attempt,
        task_id=record.task_id,
        isolation=Isolation.ASYNC,
        payload=record.payload,
        is_resumed=False,
        has_journal=False,
        results=(),
        created_at=record.created_at,
        started_at=record.started_at or now,
        queue=record.queue,
        concurrency_key=record.concurrency_key,
        priority=record.priority,
        tags=record.tags,
        metadata=record.metadata,
        max_attempts=record.max_attempts,
        max_duration=None,
        idempotency_key=record.idempotency_key,
        idempotency_key_scope=record.idempotency_key_scope,
        version=record.version or "",
        parent_run_id=record.parent_run_id,
        root_run_id=record.root_run_id,
        batch_id=record.batch_id,
        replay_of=record.replay_of,
        is_test=record.is_test,
    )
