"""A run without a worker: it notes what is asked of it and answers as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TypeVar

from detent.errors import DetentError
from detent.protocol import metadata
from detent.protocol.backend import CallerBackend
from detent.protocol.codec import JsonValue
from detent.protocol.environments import Environment, EnvironmentType
from detent.protocol.execution import Isolation
from detent.protocol.idempotency import Idempotency, WaitKey
from detent.protocol.ids import BatchId, WaitpointId, new_batch_id, new_run_id
from detent.protocol.leases import Lease
from detent.protocol.metadata import Document, MetadataOperation, MetadataTarget
from detent.protocol.moment import When
from detent.protocol.run_error import RunError
from detent.protocol.runs import RunOutcome
from detent.protocol.status import RunStatus
from detent.protocol.tokens import TokenCreated, TokenRequest
from detent.protocol.triggering import Triggered, TriggerRequest
from detent.protocol.waits import WaitResult
from detent.sdk.chunks import GivenBatch
from detent.sdk.context import CancelSignal, Context
from detent.sdk.failure import failure_to_text, rebuild
from detent.sdk.scope import OpenSpan
from detent.sdk.usage import Usage

T = TypeVar("T")


DEV = Environment(id="env_0000000000000000000000000a", slug="dev", type=EnvironmentType.DEVELOPMENT)


class NamedTask:
    id = "parent"
    file_path = "tasks/parent.py"


def lease(**fields: object) -> Lease:
    now = datetime.now(UTC)
    defaults: dict[str, object] = {
        "run_id": new_run_id(), "fence": 1, "attempt": 2, "task_id": "parent", "isolation": Isolation.ASYNC, "payload": None,
        "is_resumed": False, "has_journal": False, "results": (), "created_at": now, "started_at": now,
        "queue": "task/parent", "concurrency_key": None, "priority": 0.0, "tags": ("user:7",), "metadata": None,
        "max_attempts": 3, "max_duration": None, "idempotency_key": None, "idempotency_key_scope": None, "version": "20260801.1",
        "parent_run_id": None, "root_run_id": None, "batch_id": None, "replay_of": None, "is_test": False,
    }  # fmt: skip
    return Lease(**{**defaults, **fields})  # type: ignore[arg-type]


def context(**fields: object) -> Context:
    return Context.from_lease(lease(**fields), NamedTask, environment=DEV, project="shop")


def completed(request: TriggerRequest, output: str | None = None) -> RunOutcome:
    return RunOutcome(run_id=request.run_id, task_id=request.task_id, status=RunStatus.COMPLETED, output=output)


def failed(request: TriggerRequest, message: str = "boom") -> RunOutcome:
    error = RunError(name="ValueError", message=message)
    return RunOutcome(run_id=request.run_id, task_id=request.task_id, status=RunStatus.FAILED, error=error)


class FakeDocument:
    """Metadata that no database knows; what others do to it comes with `refresh`."""

    def __init__(self) -> None:
        self.own: Document = {}
        self.operations: list[MetadataOperation] = []
        self.refreshed: Document = {}
        self.flushes = 0

    def read(self, key: str) -> JsonValue:
        return metadata.find(self.own, metadata.to_path(key))

    def read_all(self) -> Document:
        return self.own

    def update(self, operation: MetadataOperation) -> None:
        self.operations.append(operation)
        if operation.target is MetadataTarget.OWN:
            self.own = metadata.apply(self.own, operation)

    async def flush(self) -> None:
        self.flushes += 1

    async def refresh(self) -> None:
        self.own = self.refreshed


class FakeRun:
    """`answer` makes the outcome of a child: by default it completes without an output."""

    def __init__(self) -> None:
        self.context = context()
        self.signal = CancelSignal(self.context.run.id)
        self.metadata: str | None = None
        self.locals: dict[str, object] = {}
        self.document = FakeDocument()
        self.tags: list[str] = []
        self.loop = asyncio.get_running_loop()
        self.is_replaying = False
        self.answer: Callable[[TriggerRequest], RunOutcome] = completed
        self.triggered: list[TriggerRequest] = []
        self.waits: list[When] = []
        self.keys: list[WaitKey | None] = []
        """Of the waits."""
        self.tokens: list[TokenRequest] = []
        self.token_results: dict[WaitpointId, WaitResult] = {}
        """What tokens come to."""
        self.used = Usage(attempt_duration=0.0, run_duration=0.0)
        self.refusal: Exception | None = None
        self.last_turn = 0.0
        self.lines: list[tuple[str, str, dict[str, object] | None]] = []
        self.never: asyncio.Event = asyncio.Event()
        self.is_waiting = asyncio.Event()
        self.is_stuck = False
        self.steps: list[tuple[str, str]] = []
        """Names and fingerprints, since the code began."""
        self.records: dict[tuple[str, int], tuple[str | None, str | None]] = {}
        """What steps came to, by name and number: an output, or a failure."""

    def carry_out(self, coroutine: Coroutine[object, object, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    @property
    def backend(self) -> CallerBackend:
        raise DetentError("this run has no backend")

    async def add_tags(self, tags: tuple[str, ...]) -> None:
        self.tags += tags

    async def trigger(self, request: TriggerRequest) -> Triggered:
        self.triggered.append(request)
        return Triggered(run_id=request.run_id)

    async def trigger_and_wait(self, request: TriggerRequest) -> RunOutcome:
        self.triggered.append(request)
        if self.is_stuck:
            self.is_waiting.set()
            await self.never.wait()
        await asyncio.sleep(0)
        return self.answer(request)

    async def trigger_batch(
        self, requests: Iterable[TriggerRequest] | AsyncIterable[TriggerRequest], key: Idempotency | None
    ) -> GivenBatch:
        self.triggered = [request async for request in _all_of(requests)]
        return GivenBatch(batch_id=new_batch_id(), count=len(self.triggered))

    async def trigger_batch_and_wait(
        self, requests: Iterable[TriggerRequest] | AsyncIterable[TriggerRequest]
    ) -> tuple[BatchId, Sequence[RunOutcome]]:
        self.triggered = [request async for request in _all_of(requests)]
        return new_batch_id(), [self.answer(request) for request in self.triggered]

    async def wait_until(self, until: When, *, key: WaitKey | None = None) -> None:
        self.waits.append(until)
        self.keys.append(key)

    async def create_token(self, request: TokenRequest) -> TokenCreated:
        self.tokens.append(request)
        return TokenCreated(waitpoint_id=request.waitpoint_id, secret="s3cret")

    async def wait_for_token(self, token_id: WaitpointId) -> WaitResult:
        await asyncio.sleep(0)
        return self.token_results[token_id]

    async def step(self, name: str, fingerprint: str, execute: Callable[[], Awaitable[str | None]]) -> str | None:
        place = name, sum(asked == name for asked, _ in self.steps)
        self.steps.append((name, fingerprint))
        if place not in self.records:
            try:
                self.records[place] = await execute(), None
            except Exception as error:
                self.records[place] = None, failure_to_text(error)
                raise
        output, failure = self.records[place]
        if failure is not None:
            raise rebuild(failure)
        return output

    def begin_again(self) -> None:
        """Have the code start from its top, as in another process: steps are answered from the record."""
        self.steps.clear()

    def usage(self) -> Usage:
        return self.used

    def check(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    def log(self, level: str, message: str, fields: dict[str, object] | None = None) -> None:
        self.lines.append((level, message, fields))

    def capture(self, level: str, message: str, fields: dict[str, object] | None = None) -> None:
        self.log(level, message, fields)

    def open_span(self, name: str, fields: dict[str, object]) -> OpenSpan | None:
        return None


async def _all_of(requests: Iterable[TriggerRequest] | AsyncIterable[TriggerRequest]) -> AsyncIterable[TriggerRequest]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request
