"""A run as its own code sees it: every durable call goes through the journal, under the run's fence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar, cast

from detent.errors import BatchTriggerError, InternalServerError, NonDeterminismError, StaleRunError
from detent.protocol import ids
from detent.protocol.backend import CallerBackend
from detent.protocol.ids import BatchId, RunId, WaitpointId
from detent.protocol.models import (
    BatchChunk,
    ChildRequest,
    ChildTriggered,
    ChunkTaken,
    JournalEntry,
    OperationKind,
    Origin,
    Pending,
    Refused,
    RunOutcome,
    Stale,
    Suspended,
    TimeWait,
    Triggered,
    TriggerRequest,
    WaitResult,
    When,
)
from detent.protocol.refusal import to_error
from detent.sdk.chunks import Sending
from detent.worker.attempt import Attempt, Phase
from detent.worker.capture import RANKS
from detent.worker.durable_calls import DurableCalls
from detent.worker.journal import DATED
from detent.worker.log_lines import LogLines

if TYPE_CHECKING:
    from detent.sdk.context import CancelSignal, Context

A = TypeVar("A")

SLEPT_IN_PROCESS = 5.0
"""Seconds up to which a wait keeps its slot and is not recorded."""
TIME = "time"
BATCH = "batch"
"""Fingerprints of what has no task id of its own."""


class AttemptScope:
    """The `RunScope` of an attempt."""

    __slots__ = ("_attempt", "_calls", "_context", "_lines", "_make_context", "_rank", "loop")

    def __init__(
        self,
        attempt: Attempt,
        *,
        calls: DurableCalls,
        lines: LogLines,
        log_rank: int,
        loop: asyncio.AbstractEventLoop,
        context: Callable[[Attempt], Context],
    ) -> None:
        self._attempt, self._calls, self._lines, self._rank = attempt, calls, lines, log_rank
        self._make_context, self._context = context, cast("Context | None", None)
        self.loop = loop

    @property
    def context(self) -> Context:
        if self._context is None:
            self._context = self._make_context(self._attempt)
        return self._context

    @property
    def signal(self) -> CancelSignal:
        return self._attempt.signal

    @property
    def backend(self) -> CallerBackend:
        return self._calls.backend

    @property
    def is_replaying(self) -> bool:
        return self._attempt.journal.is_replaying

    @property
    def record(self) -> int:
        """Its place in the note of who is on the CPU."""
        return self._attempt.record

    def log(self, level: str, message: str, fields: dict[str, object] | None = None) -> None:
        if RANKS.get(level, 1) < self._rank:
            return
        if self._attempt.journal.is_replaying:
            self._attempt.next_line()  # stored before the process that wrote it died
        else:
            self._lines.add(self._attempt, level, message, fields)

    # ---- triggers ----

    async def trigger(self, request: TriggerRequest) -> Triggered:
        operation, recorded = self._begin(OperationKind.TRIGGER, request.task_id)
        if recorded is not None:
            return Triggered(run_id=RunId(recorded.ref), is_cached=recorded.is_cached)
        answer = await self._trigger(request, operation, wait=False)
        return answer.triggered

    async def trigger_and_wait(self, request: TriggerRequest) -> RunOutcome:
        operation, recorded = self._begin(OperationKind.CHILD, request.task_id)
        if recorded is not None:
            if recorded.result is not None:
                return _child_of(recorded.result)
            request = replace(request, run_id=RunId(recorded.ref))

        async def ask() -> WaitResult | Pending | Suspended:
            made = await self._trigger(request, operation, wait=True)
            return made.wait if made.wait is not None else Suspended()

        return _child_of(await self._wait(operation, ask))

    async def _trigger(self, request: TriggerRequest, operation: str, *, wait: bool) -> ChildTriggered:
        def ask() -> Awaitable[ChildTriggered | Refused | Stale]:
            return self._calls.trigger_child(ChildRequest(request=request, origin=self._origin(operation, wait=wait)))

        answer: ChildTriggered | Refused = await self._ask(ask)
        if isinstance(answer, Refused):
            raise to_error(answer)
        return answer

    # ---- batches ----

    async def trigger_batch(
        self, requests: Iterable[TriggerRequest] | AsyncIterable[TriggerRequest]
    ) -> tuple[BatchId, Sequence[Triggered]]:
        operation, recorded = self._begin(OperationKind.BATCH, BATCH)
        batch_id = _batch_of(recorded)
        # Given again on a replay, too: items are known by their index, and the answers are their run ids.
        sending = Sending(cast("CallerBackend", _RunBatch(self, operation, wait=False)), batch_id)
        return batch_id, await sending.carry_out(requests)

    async def trigger_batch_and_wait(
        self, requests: Iterable[TriggerRequest] | AsyncIterable[TriggerRequest]
    ) -> tuple[BatchId, Sequence[RunOutcome]]:
        operation, recorded = self._begin(OperationKind.BATCH_WAIT, BATCH)
        batch_id = _batch_of(recorded)
        if recorded is not None and recorded.result is not None:
            result = recorded.result
        else:
            batch = _RunBatch(self, operation, wait=True)

            async def ask() -> WaitResult | Pending | Suspended:
                made = await Sending(cast("CallerBackend", batch), batch_id).carry_out(requests)
                return batch.wait if made and batch.wait is not None else WaitResult(operation=operation)

            result = await self._wait(operation, ask)
        if result.error is not None:
            raise BatchTriggerError("items", batch_id, 0, str(result.error))
        return batch_id, await self._calls.read_batch_results(batch_id)

    async def give_chunk(self, chunk: BatchChunk, operation: str, *, wait: bool) -> ChunkTaken | Refused:
        return await self._ask(
            lambda: self._calls.trigger_batch(replace(chunk, origin=self._origin(operation, wait=wait)))
        )

    async def abort_batch(self, batch_id: BatchId, reason: str) -> None:
        # A copy that was dropped leaves the batch to the one that goes on.
        if not self._attempt.is_dropped:
            await self._calls.abort_batch(batch_id, reason)

    # ---- time ----

    async def wait_until(self, until: When) -> None:
        self._attempt.check()
        if isinstance(until, timedelta):
            seconds, is_recorded = until.total_seconds(), False
        else:
            seconds, is_recorded = (until - datetime.now(UTC)).total_seconds(), self._attempt.journal.has(DATED)
        if seconds <= SLEPT_IN_PROCESS and not is_recorded:
            await asyncio.sleep(max(0.0, seconds))
            return
        await self._wait_durably(until)

    async def _wait_durably(self, until: When) -> None:
        operation, recorded = self._begin(OperationKind.TIME, TIME, mark=DATED if isinstance(until, datetime) else "")
        if recorded is not None and recorded.result is not None:
            return
        waitpoint = ids.new_waitpoint_id() if recorded is None else WaitpointId(recorded.ref)

        def wait() -> Awaitable[WaitResult | Pending | Suspended | Refused | Stale]:
            origin = self._origin(operation, wait=True)
            return self._calls.wait_for(TimeWait(origin=origin, until=until, waitpoint_id=waitpoint))

        async def ask() -> WaitResult | Pending | Suspended:
            answer: WaitResult | Pending | Suspended | Refused = await self._ask(wait)
            if isinstance(answer, Refused):
                raise to_error(answer)
            return answer

        await self._wait(operation, ask)

    async def wait_for_token(self, token_id: WaitpointId) -> WaitResult:
        raise NotImplementedError

    async def step(self, name: str, fingerprint: str, execute: Callable[[], Awaitable[str | None]]) -> str | None:
        raise NotImplementedError

    # ---- how it is asked ----

    def _begin(self, kind: OperationKind, fingerprint: str, *, mark: str = "") -> tuple[str, JournalEntry | None]:
        self._attempt.check()
        try:
            return self._attempt.journal.next(kind, fingerprint, mark)
        except NonDeterminismError as error:
            # Code that swallows it must not go on from a place that never was.
            self._attempt.refusal = error
            raise

    def _origin(self, operation: str, *, wait: bool) -> Origin:
        return Origin(holder=self._attempt.holder, operation=operation, wait=wait)

    async def _ask(self, ask: Callable[[], Awaitable[A | Stale]]) -> A:
        """Ask under the present fence; again, when the run was resumed under another one meanwhile."""
        attempt = self._attempt
        while True:
            attempt.check()
            fence = attempt.fence
            answer = await ask()
            if not isinstance(answer, Stale):
                return answer
            if attempt.fence != fence:
                continue
            if attempt.phase is Phase.WAITING:
                await attempt.resumption()
            else:
                attempt.host.lost(attempt)
                raise StaleRunError(attempt.run_id)

    async def _wait(self, operation: str, ask: Callable[[], Awaitable[WaitResult | Pending | Suspended]]) -> WaitResult:
        attempt = self._attempt
        waiter = attempt.expect(operation)
        try:
            answer = await ask()
            if isinstance(answer, WaitResult):
                return answer
            if not waiter.done():
                attempt.suspend()
            result = await waiter
        finally:
            attempt.forget(operation)
        attempt.check()
        return result


class _RunBatch:
    """The two calls that a batch in the making needs, made in the name of a run."""

    def __init__(self, scope: AttemptScope, operation: str, *, wait: bool) -> None:
        self._scope, self._operation, self._wait = scope, operation, wait
        self.wait: WaitResult | Pending | Suspended | None = None

    async def trigger_batch(self, chunk: BatchChunk) -> ChunkTaken | Refused:
        taken = await self._scope.give_chunk(chunk, self._operation, wait=self._wait)
        if isinstance(taken, ChunkTaken):
            self.wait = taken.wait
        return taken

    async def abort_batch(self, batch_id: BatchId, reason: str) -> None:
        await self._scope.abort_batch(batch_id, reason)


def _batch_of(recorded: JournalEntry | None) -> BatchId:
    return ids.new_batch_id() if recorded is None else BatchId(recorded.ref)


def _child_of(result: WaitResult) -> RunOutcome:
    if result.child is None:
        raise InternalServerError(f"the wait {result.operation} for a run ended without the run's outcome")
    return result.child
