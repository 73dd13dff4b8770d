"""A run as its own code sees it: every durable call goes through the journal, under the run's fence."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

from detent.errors import (
    ApiError,
    BatchTriggerError,
    InternalServerError,
    JournalFullError,
    NonDeterminismError,
    OutsideRunError,
    StaleRunError,
    TooManyTagsError,
)
from detent.protocol import ids
from detent.protocol.backend import CallerBackend
from detent.protocol.batches import BatchChunk, BatchCreated, BatchCreation, ChunkTaken
from detent.protocol.children import ChildRequest, ChildTriggered
from detent.protocol.fence import Stale
from detent.protocol.idempotency import Idempotency, WaitKey
from detent.protocol.ids import BatchId, RunId, WaitpointId
from detent.protocol.journal import JournalEntry, Recorded, StepRecord
from detent.protocol.limits import TAGS_LIMIT
from detent.protocol.moment import When
from detent.protocol.operations import OperationKind, Origin
from detent.protocol.refusal import Refused, to_error
from detent.protocol.runs import RunOutcome
from detent.protocol.tags import TagsAdded, TagsAddition
from detent.protocol.tokens import TokenCreated, TokenRequest
from detent.protocol.triggering import Triggered, TriggerRequest
from detent.protocol.waits import Pending, Suspended, TimeWait, TokenWait, Wait, WaitResult
from detent.sdk import failure
from detent.sdk.chunks import GivenBatch, Requests, Sending
from detent.sdk.hooks import HookKind, WaitInfo, WaitKind
from detent.sdk.usage import Usage
from detent.worker.attempt import Attempt, Phase
from detent.worker.durable_calls import DurableCalls
from detent.worker.journal import DATED, describe
from detent.worker.log_lines import RANKS, LogLines
from detent.worker.metadata import RunMetadata
from detent.worker.note import Note, OnCpu
from detent.worker.path import Line, Path, here

if TYPE_CHECKING:
    from detent.sdk.context import CancelSignal, Context
    from detent.sdk.scope import OpenSpan
    from detent.worker.telemetry import RunTelemetry
    from detent.worker.timers import Timers

A = TypeVar("A")
OnWaiting: TypeAlias = Callable[[HookKind, WaitInfo, str], Awaitable[None]]
Prepare: TypeAlias = Callable[[WaitResult], Awaitable[None]]

SLEPT_IN_PROCESS = 5.0
"""Seconds up to which a wait keeps its slot and is not recorded."""
TIME = "time"
TOKEN = "token"
NEW_TOKEN = "new_token"
BATCH = "batch"
"""Fingerprints of what has no task id of its own."""
_OURS = __name__.partition(".")[0]


class AttemptScope:
    """The `RunScope` of an attempt."""

    __slots__ = (
        "_calls",
        "_context",
        "_document",
        "_fence",
        "_lines",
        "_make_context",
        "_note",
        "_rank",
        "_telemetry",
        "attempt",
        "loop",
        "on_waiting",
    )

    is_rehearsal = False

    def __init__(
        self,
        attempt: Attempt,
        *,
        calls: DurableCalls,
        lines: LogLines,
        log_rank: int,
        note: Note,
        loop: asyncio.AbstractEventLoop,
        context: Callable[[Attempt], Context],
        telemetry: RunTelemetry | None = None,
    ) -> None:
        self.attempt, self._calls, self._lines, self._rank, self._note = attempt, calls, lines, log_rank, note
        self._telemetry = telemetry
        self._make_context, self._context = context, cast("Context | None", None)
        self._document: RunMetadata | None = None
        self.loop = loop
        self._fence = attempt.fence
        """Under which the latest answer was given."""
        self.on_waiting: OnWaiting | None = None
        """Calls the hooks around waits, if there are any."""

    def share(self, scope: AttemptScope) -> None:
        """Be of the same attempt as *scope*."""
        self.attempt, self._calls, self._lines, self._rank = scope.attempt, scope._calls, scope._lines, scope._rank
        self._note, self.loop, self._make_context = scope._note, scope.loop, scope._make_context
        self._telemetry = scope._telemetry
        self._context, self._fence, self.on_waiting = scope._context, scope._fence, None

    @property
    def locals(self) -> dict[str, object]:
        return self.attempt.locals

    @property
    def context(self) -> Context:
        if self._context is None:
            self._context = self._make_context(self.attempt)
        return self._context

    @property
    def signal(self) -> CancelSignal:
        return self.attempt.signal

    @property
    def metadata(self) -> str | None:
        return self.attempt.lease.metadata

    @property
    def document(self) -> RunMetadata:
        if self._document is None:
            self._document = RunMetadata(self.attempt, self._calls, self.loop, self._path)
        return self._document

    async def flush_metadata(self) -> None:
        """Store the updates that were made so far, if there are any."""
        if self._document is not None:
            await self._document.flush()

    @property
    def backend(self) -> CallerBackend:
        return self._calls.backend

    @property
    def is_replaying(self) -> bool:
        """Whether the code has not yet reached the last operation that was recorded."""
        path = self._path()
        return self.attempt.journal.has_beyond(path.text, path.asked)

    @property
    def timers(self) -> Timers:
        return self.attempt.timers

    @property
    def record(self) -> int:
        """Its place in the note of who is on the CPU."""
        return self.attempt.record

    def usage(self) -> Usage:
        attempt = self.attempt
        elapsed, lease = attempt.elapsed, attempt.lease
        return Usage(
            attempt_duration=elapsed,
            run_duration=lease.active - lease.attempt_active + elapsed,
            cpu_time=attempt.meter.cpu_time,
            peak_memory=attempt.meter.peak_memory,
        )

    def check(self) -> None:
        self.attempt.check()

    @property
    def last_turn(self) -> float:
        return self._note.beat_at

    def log(self, level: str, message: str, fields: dict[str, object] | None = None) -> None:
        if RANKS.get(level, 1) >= self._rank:
            self.capture(level, message, fields)

    def capture(self, level: str, message: str, fields: dict[str, object] | None = None) -> None:
        path = self._path()
        number, path.lines = path.lines, path.lines + 1
        # What comes before a recorded operation was stored before the process that wrote it died; what code says because it has
        # to leave memory would take the place of what it says when it goes on.
        if not (self.attempt.has_left or self.attempt.journal.has_beyond(path.text, path.asked)):
            self._lines.add(self.attempt, level, message, fields, place=path.place, number=number)
            if self._telemetry is not None:
                self._telemetry.log(self.attempt, level, message, fields)

    def open_span(self, name: str, fields: dict[str, object]) -> OpenSpan | None:
        return None if self._telemetry is None else self._telemetry.open_span(name, fields)

    def place_of_span(self) -> str | None:
        """Return by what a span that begins here is known, in a replay, too; None in a thread that is not ours."""
        line = here()
        if line is None:
            return None
        path = line.path
        number, path.spans = path.spans, path.spans + 1
        return f"{self.attempt.run_id} {self.attempt.attempt} {path.place} {number}"

    def carry_out(self, coroutine: Coroutine[object, object, A]) -> concurrent.futures.Future[A]:
        """Await *coroutine* on the loop for the calling thread, which stands in it meanwhile."""
        line = here()
        if line is None:
            coroutine.close()
            raise OutsideRunError("a blocking call from a thread that the run's own code has started")
        return asyncio.run_coroutine_threadsafe(
            OnCpu(self._blocking(coroutine), self.attempt, self._note, line), self.loop
        )

    async def _blocking(self, coroutine: Coroutine[object, object, A]) -> A:
        self.attempt.blocked += 1
        try:
            return await coroutine
        finally:
            self.attempt.blocked -= 1

    # ---- triggers ----

    async def trigger(self, request: TriggerRequest) -> Triggered:
        operation, recorded = self._begin(OperationKind.TRIGGER, request.task_id)
        if recorded is not None:
            return await self._repeat(operation, Triggered(run_id=RunId(recorded.ref), is_cached=recorded.is_cached))

        async def ask() -> Triggered:
            return (await self._trigger(request, operation, wait=False)).triggered

        return await self._answered(operation, ask)

    async def trigger_and_wait(self, request: TriggerRequest) -> RunOutcome:
        operation, recorded = self._begin(OperationKind.CHILD, request.task_id)
        made_here = request.run_id if request.idempotency is None else None
        about = WaitInfo(kind=WaitKind.TASK, subject=request.task_id, run_id=made_here)
        if recorded is not None:
            return _child_of(await self._stand(operation, about, recorded))

        async def ask() -> WaitResult | Pending | Suspended:
            made = await self._trigger(request, operation, wait=True)
            return made.wait if made.wait is not None else Pending()

        return _child_of(await self._wait(operation, about, ask))

    async def _trigger(self, request: TriggerRequest, operation: str, *, wait: bool) -> ChildTriggered:
        def ask(origin: Origin) -> Awaitable[ChildTriggered | Refused | Stale]:
            return self._calls.trigger_child(ChildRequest(request=request, origin=origin))

        # What a child says of its parent's comes after what the parent has said before.
        await self.flush_metadata()
        answer: ChildTriggered | Refused = await self._ask(operation, ask, wait=wait)
        if isinstance(answer, Refused):
            raise to_error(answer)
        return answer

    # ---- batches ----

    async def trigger_batch(self, requests: Requests, key: Idempotency | None) -> GivenBatch:
        operation, recorded = self._begin(OperationKind.BATCH, BATCH)

        async def ask() -> GivenBatch:
            batch_id, is_cached = _batch_of(recorded), recorded is not None and recorded.is_cached
            if key is not None and recorded is None:
                created = await self._create_batch(BatchCreation(batch_id=batch_id, key=key), operation)
                batch_id, is_cached = created.batch_id, created.is_cached
            # Given again on a replay, too: items are known by their index, and their iterable may have operations of its own.
            given = await Sending(_RunBatch(self, operation, wait=False), batch_id).carry_out(requests)
            return replace(given, is_cached=is_cached)

        return await self._answered(operation, ask)

    async def _create_batch(self, creation: BatchCreation, operation: str) -> BatchCreated:
        def ask(origin: Origin) -> Awaitable[BatchCreated | Stale]:
            return self._calls.create_batch(replace(creation, origin=origin))

        return await self._ask(operation, ask, wait=False)

    async def trigger_batch_and_wait(self, requests: Requests) -> tuple[BatchId, Sequence[RunOutcome]]:
        operation, recorded = self._begin(OperationKind.BATCH_WAIT, BATCH)
        batch_id = _batch_of(recorded)
        about = WaitInfo(kind=WaitKind.BATCH, subject=batch_id)
        outcomes: list[RunOutcome] = []

        async def read(result: WaitResult) -> None:
            if result.error is None:
                outcomes[:] = await self._calls.read_batch_results(batch_id)

        if recorded is not None and (recorded.is_sealed or recorded.result is not None):
            result = await self._stand(operation, about, recorded, read)
        else:
            batch = _RunBatch(self, operation, wait=True)

            async def ask() -> WaitResult | Pending | Suspended:
                given = await Sending(batch, batch_id).carry_out(requests)
                return batch.answer if given.count and batch.answer is not None else WaitResult(operation=operation)

            result = await self._wait(operation, about, ask, read)
        if result.error is not None:
            raise BatchTriggerError("items", batch_id, 0, str(result.error))
        return batch_id, outcomes

    async def give_chunk(self, chunk: BatchChunk, operation: str, *, wait: bool) -> ChunkTaken | Refused:
        def ask(origin: Origin) -> Awaitable[ChunkTaken | Refused | Stale]:
            return self._calls.trigger_batch(replace(chunk, origin=origin))

        await self.flush_metadata()
        return await self._ask(operation, ask, wait=wait)

    async def abort_batch(self, batch_id: BatchId, reason: str) -> None:
        # A copy that was dropped leaves the batch to the one that goes on.
        if not self.attempt.is_dropped:
            await self._calls.abort_batch(batch_id, reason)

    # ---- time and tokens ----

    async def wait_until(self, until: When, *, key: WaitKey | None = None) -> None:
        self.attempt.check()
        if isinstance(until, timedelta):
            seconds, is_recorded = until.total_seconds(), False
        else:
            seconds = (until - datetime.now(UTC)).total_seconds()
            is_recorded = self.attempt.journal.has(self._here().path.peek(DATED))
        if seconds <= SLEPT_IN_PROCESS and not is_recorded:
            await asyncio.sleep(max(0.0, seconds))
            return
        operation, recorded = self._begin(OperationKind.TIME, TIME, mark=DATED if isinstance(until, datetime) else "")
        about = WaitInfo(kind=WaitKind.DURATION, until=_moment(until, recorded))
        if recorded is not None:
            await self._stand(operation, about, recorded)
            return
        waitpoint = ids.new_waitpoint_id()
        await self._wait_for(
            operation, about, lambda origin: TimeWait(origin=origin, until=until, waitpoint_id=waitpoint, key=key)
        )

    async def create_token(self, request: TokenRequest) -> TokenCreated:
        operation, recorded = self._begin(OperationKind.NEW_TOKEN, NEW_TOKEN)
        if recorded is not None:
            token = TokenCreated(
                waitpoint_id=WaitpointId(recorded.ref), secret=recorded.output or "", is_cached=recorded.is_cached
            )
            return await self._repeat(operation, token)

        def create(origin: Origin) -> Awaitable[TokenCreated | Refused | Stale]:
            return self._calls.create_token(replace(request, origin=origin))

        async def ask() -> TokenCreated:
            answer: TokenCreated | Refused = await self._ask(operation, create, wait=False)
            if isinstance(answer, Refused):
                raise to_error(answer)
            return answer

        return await self._answered(operation, ask)

    async def wait_for_token(self, token_id: WaitpointId) -> WaitResult:
        operation, recorded = self._begin(OperationKind.TOKEN, TOKEN)
        about = WaitInfo(kind=WaitKind.TOKEN, subject=token_id)
        if recorded is not None:
            return await self._stand(operation, about, recorded)
        return await self._wait_for(operation, about, lambda origin: TokenWait(origin=origin, waitpoint_id=token_id))

    async def _wait_for(self, operation: str, about: WaitInfo, wait_from: Callable[[Origin], Wait]) -> WaitResult:
        def wait(origin: Origin) -> Awaitable[WaitResult | Pending | Suspended | Refused | Stale]:
            return self._calls.wait_for(wait_from(origin))

        async def ask() -> WaitResult | Pending | Suspended:
            answer: WaitResult | Pending | Suspended | Refused = await self._ask(operation, wait, wait=True)
            if isinstance(answer, Refused):
                raise to_error(answer)
            return answer

        return await self._wait(operation, about, ask)

    # ---- steps ----

    async def step(self, name: str, fingerprint: str, execute: Callable[[], Awaitable[str | None]]) -> str | None:
        line = self._here()
        path = line.path
        operation = path.step(name)
        recorded = self._take(path, operation, OperationKind.STEP, fingerprint)
        if recorded is not None:
            error = None if recorded.error is None else failure.rebuild(recorded.error)
            return await self._repeat(operation, recorded.output, error)
        kept = self.attempt.journal.kept(operation, fingerprint)
        if kept is not None:
            # Recorded in this attempt, too: its answer has a place among the others.
            await self._record_step(operation, fingerprint, output=kept.output)
            return kept.output
        if self.attempt.journal.was_abandoned(operation):
            await self._until_abandoned(operation)
        line.path = Path(f"{operation}/")
        try:
            output = await execute()
        except asyncio.CancelledError:
            self.attempt.journal.give_up(operation)
            raise
        except Exception as error:
            self.attempt.check()
            await self._record_step(operation, fingerprint, error=failure.failure_to_text(error))
            raise
        finally:
            line.path = path
        await self._record_step(operation, fingerprint, output=output)
        return output

    async def _record_step(
        self, operation: str, fingerprint: str, *, output: str | None = None, error: str | None = None
    ) -> None:
        def record(origin: Origin) -> Awaitable[Recorded | Stale]:
            step = StepRecord(origin=origin, fingerprint=fingerprint, output=output, error=error)
            return self._calls.record_step(step)

        # A replay does not execute the step's body: what it said is stored before.
        await self.flush_metadata()

        async def ask() -> Recorded:
            return await self._ask(operation, record, wait=False)

        await self._answered(operation, ask)

    # ---- tags ----

    async def add_tags(self, tags: tuple[str, ...]) -> None:
        attempt = self.attempt
        while True:
            attempt.check()
            holder = attempt.holder
            answer = await self._calls.add_tags(TagsAddition(holder=holder, tags=tags))
            if isinstance(answer, TagsAdded):
                break
            if attempt.holder == holder:
                attempt.host.lost(attempt)
                raise StaleRunError(attempt.run_id)
        if answer.count > TAGS_LIMIT:
            raise TooManyTagsError(answer.count, TAGS_LIMIT)

    # ---- how it is asked ----

    def _here(self) -> Line:
        line = here()
        if line is None:
            raise OutsideRunError("a durable call from code that the run did not start")
        return line

    def _path(self) -> Path:
        line = here()
        return self.attempt.path if line is None else line.path

    def _begin(self, kind: OperationKind, fingerprint: str, *, mark: str = "") -> tuple[str, JournalEntry | None]:
        path = self._here().path
        operation = path.operation(mark)
        return operation, self._take(path, operation, kind, fingerprint)

    def _take(self, path: Path, operation: str, kind: OperationKind, fingerprint: str) -> JournalEntry | None:
        attempt = self.attempt
        attempt.check()
        path.asked += 1
        path.lines = path.updates = path.spans = 0
        try:
            recorded = attempt.journal.take(operation, kind, fingerprint)
        except (NonDeterminismError, JournalFullError) as error:
            if isinstance(error, NonDeterminismError):
                error = NonDeterminismError(error.run_id, error.operation, error.recorded, error.asked, _line_of_code())
            # Code that swallows it must not go on from a place that never was.
            attempt.refusal = error
            raise error from None
        if recorded is not None:
            attempt.timers.date(recorded.recorded_at)
        else:
            self._goes_on(operation, describe(kind, fingerprint, operation))
        attempt.timers.catch_up()
        return recorded

    def _goes_on(self, operation: str, asked: str) -> None:
        """The code asks for something that was not recorded."""
        if self.attempt.journal.is_nearly_full:
            self.log("warn", "this attempt has used most of the durable operations that its journal takes")

    async def _repeat(self, operation: str, answer: A, error: Exception | None = None) -> A:
        """Answer what was recorded, in its turn."""

        async def ask() -> A:
            return answer

        answered = await self._answered(operation, ask)
        if error is not None:
            raise error
        return answered

    async def _answered(self, operation: str, ask: Callable[[], Awaitable[A]]) -> A:
        """Return what *ask* comes to, when it is its turn."""
        answers = self.attempt.answers
        answers.expect(operation)
        try:
            answers.arrive(operation, await ask())
            return cast("A", await answers.get(operation))
        except asyncio.CancelledError:
            answers.give_up(operation)
            raise
        except ApiError:
            self.attempt.journal.fail(operation)
            raise
        finally:
            answers.forget(operation)

    async def _until_abandoned(self, operation: str) -> None:
        """Stand in what the code gave up before it was recorded, until it gives up again."""
        answers = self.attempt.answers
        answers.expect(operation)
        try:
            await answers.get(operation)
        except asyncio.CancelledError:
            answers.give_up(operation)
            raise
        finally:
            answers.forget(operation)

    async def _stand(
        self, operation: str, about: WaitInfo, recorded: JournalEntry, prepare: Prepare | None = None
    ) -> WaitResult:
        """Wait for what the run has asked for before. Where the replay goes on, the run is resumed, and is told so."""
        is_passed = recorded.result is not None and self.is_replaying

        async def ask() -> WaitResult | Pending | Suspended:
            return recorded.result or Pending()

        result = await self._await(operation, ask, prepare)
        if self.on_waiting is not None and not is_passed:
            await self.on_waiting(HookKind.ON_RESUME, _over(about, result), operation)
        return result

    async def _wait(
        self,
        operation: str,
        about: WaitInfo,
        ask: Callable[[], Awaitable[WaitResult | Pending | Suspended]],
        prepare: Prepare | None = None,
    ) -> WaitResult:
        """Wait for what the run asks for now, with its hooks around it."""
        if self.on_waiting is None:
            return await self._await(operation, ask, prepare)
        try:
            await self.on_waiting(HookKind.ON_WAIT, about, operation)
        except Exception:
            self.attempt.journal.fail(operation)
            raise
        result = await self._await(operation, ask, prepare)
        await self.on_waiting(HookKind.ON_RESUME, _over(about, result), operation)
        return result

    async def _await(
        self,
        operation: str,
        ask: Callable[[], Awaitable[WaitResult | Pending | Suspended]],
        prepare: Prepare | None = None,
    ) -> WaitResult:
        attempt, answers = self.attempt, self.attempt.answers
        answers.expect(operation)
        if prepare is not None:
            attempt.preparing = (attempt.preparing or {}) | {operation: prepare}
        try:
            answer = await ask()
            if isinstance(answer, WaitResult):
                if prepare is not None:
                    await prepare(answer)
                answers.arrive(operation, answer)
            elif not answers.has(operation):
                attempt.standing.add(operation)
                # Resumed since the answer was given, it is suspended no more.
                if isinstance(answer, Suspended) and self._fence == attempt.fence:
                    attempt.suspend()
                else:
                    attempt.host.stands(attempt)
            result = cast("WaitResult", await answers.get(operation))
        except asyncio.CancelledError:
            answers.give_up(operation)
            raise
        except ApiError:
            attempt.journal.fail(operation)
            raise
        finally:
            attempt.standing.discard(operation)
            if prepare is not None and attempt.preparing is not None:
                attempt.preparing.pop(operation, None)
            answers.forget(operation)
        attempt.check()
        return result

    async def _ask(self, operation: str, ask: Callable[[Origin], Awaitable[A | Stale]], *, wait: bool) -> A:
        """Ask under the present fence; again, when the run was resumed under another one meanwhile."""
        attempt, first = self.attempt, None
        while True:
            attempt.check()
            await self._executing()
            fence, stamp = attempt.fence, attempt.journal.stamp(len(attempt.answers) - 1)
            first = first or stamp
            answer = await ask(
                Origin(
                    holder=attempt.holder,
                    operation=operation,
                    wait=wait,
                    suspends=wait and attempt.has_one_thing_to_do,
                    stamp=stamp,
                    version=self.context.run.version,
                )
            )
            if not isinstance(answer, Stale):
                # It may have been recorded when it was asked for at first, and that answer was lost.
                attempt.journal.confirm(first)
                self._fence = fence
                return answer
            if attempt.fence == fence and attempt.phase is not Phase.WAITING:
                attempt.host.lost(attempt)
                raise StaleRunError(attempt.run_id)

    async def _executing(self) -> None:
        """Return when the run has its slot: code that was let run on while it was suspended asks for it again."""
        attempt = self.attempt
        while attempt.suspending is not None:
            await asyncio.shield(attempt.suspending)
        if attempt.phase is Phase.WAITING:
            attempt.host.wants_back(attempt)
            await attempt.resumption()
            attempt.check()


class _RunBatch:
    """The two calls that a batch in the making needs, made in the name of a run."""

    def __init__(self, scope: AttemptScope, operation: str, *, wait: bool) -> None:
        self._scope, self._operation, self._wait = scope, operation, wait
        self.answer: WaitResult | Pending | Suspended | None = None

    async def trigger_batch(self, chunk: BatchChunk) -> ChunkTaken | Refused:
        taken = await self._scope.give_chunk(chunk, self._operation, wait=self._wait)
        if isinstance(taken, ChunkTaken):
            self.answer = taken.wait
        return taken

    async def abort_batch(self, batch_id: BatchId, reason: str) -> None:
        await self._scope.abort_batch(batch_id, reason)


def _batch_of(recorded: JournalEntry | None) -> BatchId:
    return ids.new_batch_id() if recorded is None else BatchId(recorded.ref)


def _moment(until: When, recorded: JournalEntry | None) -> datetime:
    if isinstance(until, datetime):
        return until
    asked_at = recorded.recorded_at if recorded is not None else None
    return (asked_at or datetime.now(UTC)) + until


def _over(about: WaitInfo, result: WaitResult) -> WaitInfo:
    """Return what is known of a wait once it is over."""
    return about if result.child is None else replace(about, run_id=result.child.run_id)


def _child_of(result: WaitResult) -> RunOutcome:
    if result.child is None:
        raise InternalServerError(f"the wait {result.operation} for a run ended without the run's outcome")
    return result.child


def _line_of_code() -> str:
    """Return the line of user code that is asking."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in {_OURS, "asyncio", "contextlib"}:
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
