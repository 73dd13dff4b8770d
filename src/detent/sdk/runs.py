"""`runs`: reading runs, and acting on them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, Unpack, overload

from detent.duration import Duration, seconds
from detent.errors import NotFoundError
from detent.protocol import codec, ids
from detent.protocol.codec import JsonValue
from detent.protocol.ids import BatchId, RunId, ScheduleId, new_run_id
from detent.protocol.status import RunStatus
from detent.sdk import schema
from detent.sdk.blocking import blocking
from detent.sdk.calls import Awaited
from detent.sdk.handles import RunHandle
from detent.sdk.options import TriggerOptions, to_fields, to_tags, to_when
from detent.sdk.run_query import RunQuery, to_selection
from detent.sdk.target import HERE, Target

if TYPE_CHECKING:
    from detent.protocol.moment import When
    from detent.protocol.run_error import RunError
    from detent.protocol.runs import AttemptRecord, ReplayRequest, RunRecord, WaitingReason
    from detent.protocol.selection import RunSelection
    from detent.protocol.triggering import TriggerRequest
    from detent.sdk.bulk import Bulk, BulkSync
    from detent.sdk.run_logs import RunLog, RunLogs
    from detent.sdk.triggering import Triggerable

T = TypeVar("T")

LARGEST_PAGE = 100

_QUEUED = frozenset({RunStatus.QUEUED, RunStatus.PENDING_VERSION, RunStatus.DELAYED})
_EXECUTING = frozenset({RunStatus.EXECUTING, RunStatus.DEQUEUED})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Run(Generic[T]):
    """A run as it was when it was read. Times are aware, `max_duration` and `priority` are seconds."""

    id: RunId
    task_id: str
    status: RunStatus
    attempt: int
    """The number of the present or last attempt; 0 before the first."""
    payload: JsonValue
    output: T | None
    """What the run returned; None before it has completed."""
    error: RunError | None
    metadata: JsonValue
    tags: tuple[str, ...]
    created_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    due_at: datetime | None
    """When a delayed, waiting or retried run goes on."""
    queue: str
    concurrency_key: str | None
    limits: tuple[str, ...] | None
    """The named limits that it was triggered with; None: its task's."""
    priority: float
    ttl: float | None
    """Seconds that it may stay in the queue without ever having started, as it was triggered; None: its task's."""
    expires_at: datetime | None
    """When it expires unless it has started by then."""
    idempotency_key: str | None
    idempotency_key_scope: str | None
    """`"run"`, `"attempt"` or `"global"`; None: it has no key."""
    max_attempts: int | None
    max_duration: float | None
    version: str | None
    parent_run_id: RunId | None
    root_run_id: RunId | None
    batch_id: BatchId | None
    replay_of: RunId | None
    schedule_id: ScheduleId | None
    """The schedule that made it."""
    is_test: bool
    machine: str | None
    """The machine that it executes on, or has; of one that has not begun: as it was triggered. None: no limit."""
    usage_duration: float
    """Seconds for which it has been executed, over all attempts: time in the queue, and in waits longer than 5 s, is left out."""
    losses: int
    """How often a worker died or was lost under it."""
    waits: int
    """How often it suspended."""
    waiting_reason: WaitingReason | None
    """Why it is not running, in words and as a code; None for a run that executes or has ended."""
    attempts: tuple[AttemptRecord, ...]
    """All that have begun: those that failed and were followed by another, and the last, with the status of the run."""

    def __repr__(self) -> str:
        return f"Run(id={self.id!r}, task_id={self.task_id!r}, status={self.status.value!r})"

    @property
    def is_queued(self) -> bool:
        return self.status in _QUEUED

    @property
    def is_executing(self) -> bool:
        return self.status in _EXECUTING

    @property
    def is_waiting(self) -> bool:
        return self.status is RunStatus.WAITING

    @property
    def is_completed(self) -> bool:
        """Whether it has ended, however."""
        return self.status.is_final

    @property
    def is_success(self) -> bool:
        return self.status.is_success

    @property
    def is_failed(self) -> bool:
        """Whether it failed, crashed, timed out, expired or could not be executed. A cancelled run has not failed."""
        return self.status.is_failed

    @property
    def is_cancelled(self) -> bool:
        return self.status.is_cancelled


_COPIED = tuple(item.name for item in fields(Run) if item.name not in {"payload", "output", "metadata"})


def of_record(record: RunRecord, decode: Callable[[str | None], T]) -> Run[T]:
    """Return a run as callers see it; *decode* makes its output."""
    return Run(
        payload=_json(record.payload),
        output=decode(record.output) if record.status.is_success else None,
        metadata=_json(record.metadata),
        **{name: getattr(record, name) for name in _COPIED},
    )


def _json(text: str | None) -> JsonValue:
    return None if text is None else codec.decode(text)


class Runs:
    """Runs by their ids, or by the handles that triggers return; a handle gives the output as its task's return type."""

    label = "runs"

    def __init__(self, target: Target = HERE) -> None:
        self._target = target
        self.sync = RunsSync(self)

    @cached_property
    def bulk(self) -> Bulk:
        """Actions on many runs at once."""
        # Loaded when it is asked for: few programs do.
        from detent.sdk.bulk import Bulk

        return Bulk(self._target)

    @overload
    def retrieve(self, run: RunHandle[T]) -> Coroutine[Any, Any, Run[T]]: ...
    @overload
    def retrieve(self, run: str) -> Coroutine[Any, Any, Run[JsonValue]]: ...
    def retrieve(self, run: object) -> Coroutine[Any, Any, Run[Any]]:
        """Return a run as it stands. Raises `NotFoundError` for an id that no run has, `ValueError` for no id at all.

        Example::

            run = await runs.retrieve(handle)
        """
        return self._retrieve(_id_of(run), _decoder_of(run))

    @overload
    def poll(self, run: RunHandle[T], *, timeout: Duration | None = None) -> Coroutine[Any, Any, Run[T]]: ...
    @overload
    def poll(self, run: str, *, timeout: Duration | None = None) -> Coroutine[Any, Any, Run[JsonValue]]: ...
    def poll(self, run: object, *, timeout: Duration | None = None) -> Coroutine[Any, Any, Run[Any]]:
        """Return a run when it has ended. Raises `TimeoutError` after *timeout*; default: none.

        Notified by the database, so it costs nothing while it waits. It is not durable: inside a run use `trigger_and_wait`.
        """
        return self._poll(_id_of(run), _decoder_of(run), None if timeout is None else seconds(timeout))

    def list(self, *, limit: int = 25, **query: Unpack[RunQuery]) -> ListCall:
        """Return runs, newest first: a page of at most *limit* (1 to 100), or with `async for` all of them, page by page.

        Example::

            async for run in runs.list(status="FAILED", tags="user:7", period="1d"):
                print(run.id, run.error)

        Raises `TypeError` for a filter that there is not, and `ValueError` for a bad value.
        """
        return ListCall(self._page(to_selection(query), None, _limit(limit)), "runs.list")

    def cancel(self, run: RunHandle[object] | str, *, reason: str = "cancelled by user") -> Coroutine[Any, Any, bool]:
        """Cancel a run and all its children. True if it was cancelled now, False if it had already ended.

        A run that executes is asked to stop (`CancelSignal`), and made to. Raises `NotFoundError`.
        """
        return self._cancel(_id_of(run), reason)

    @overload
    def replay(
        self, run: RunHandle[T], *, payload: object = None, **options: Unpack[TriggerOptions]
    ) -> Coroutine[Any, Any, RunHandle[T]]: ...
    @overload
    def replay(
        self, run: str, *, payload: object = None, **options: Unpack[TriggerOptions]
    ) -> Coroutine[Any, Any, RunHandle[JsonValue]]: ...
    def replay(
        self, run: object, *, payload: object = None, **options: Unpack[TriggerOptions]
    ) -> Coroutine[Any, Any, RunHandle[Any]]:
        """Start a new run with the payload, metadata, tags, queue, concurrency key and machine of an old one, or with others.

        Example::

            await runs.replay(failed.id, machine="large-1x", tags=[*failed.tags, "again"], delay="10m")

        All other options are as at a trigger: what is not given is the task's, and no idempotency key. Another *payload* is
        checked against the schema that the task has registered. Raises `NotFoundError`, and an `ApiError` for what does not fit.
        """
        return self._replay(_replay_request(_id_of(run), payload, options), _decoder_of(run))

    @overload
    def reschedule(self, run: RunHandle[T], delay: Duration | datetime) -> Coroutine[Any, Any, Run[T]]: ...
    @overload
    def reschedule(self, run: str, delay: Duration | datetime) -> Coroutine[Any, Any, Run[JsonValue]]: ...
    def reschedule(self, run: object, delay: Duration | datetime) -> Coroutine[Any, Any, Run[Any]]:
        """Give a delayed run another date, sooner or later: so long from now, or an aware `datetime`. Returns the run.

        Example::

            await runs.reschedule(handle, "2h")

        Raises `NotFoundError`, an `ApiError` for a run that is not delayed any more, and `ValueError` for a bad date.
        """
        return self._reschedule(_id_of(run), to_when("delay", delay), _decoder_of(run))

    async def add_tags(self, run: RunHandle[Any] | str, tags: str | Iterable[str]) -> None:
        """Add a tag, or several, to any run, live or over; blank ones and those that it has are passed over.

        Example::

            await runs.add_tags(handle, ["refunded", "eu"])

        Raises `TooManyTagsError` when it would have more than 10, `ValueError` for one of over 128 characters, and
        `NotFoundError`; none is added then. Inside a run, for its own, there is `tags.add`.
        """
        from detent.sdk import amending

        run_id, added = _id_of(run), to_tags("tags", tags)
        if not await amending.add_tags(self._target.connection().backend, run_id, added):
            raise _unknown(run_id)

    async def update_metadata(
        self, run: RunHandle[Any] | str, values: Mapping[str, object]
    ) -> dict[str, JsonValue]:
        """Put values into the metadata of any run, live or over, and return the whole. What is not named stays.

        Example::

            await runs.update_metadata(handle, {"reviewed_by": "ada", "$.files.0.state": "checked"})

        A key that begins with `$.` is a path. A run that executes sees them after its next flush, within 300 ms of an update of
        its own. Raises `MetadataTooLargeError` beyond 262,144 bytes, `SerializationError`, and `NotFoundError`.
        """
        from detent.sdk import amending

        run_id = _id_of(run)
        document = await amending.annotate(
            self._target.connection().backend, run_id, amending.to_operations(values)
        )
        if document is None:
            raise _unknown(run_id)
        return document

    def logs(self, run: RunHandle[Any] | str, *, follow: bool = False) -> RunLogs:
        """Return what a run has logged and printed so far, in order; with *follow*, until it has ended.

        Example::

            async for line in runs.logs(handle, follow=True):
                print(line.at, line.level, line.message, line.fields)

        Raises `NotFoundError` when it is iterated.
        """
        from detent.sdk.run_logs import RunLogs

        return RunLogs(self._target, _id_of(run), is_following=follow)

    async def _retrieve(self, run_id: RunId, decode: Callable[[str | None], T]) -> Run[T]:
        record = await self._target.connection().retrieve(run_id)
        if record is None:
            raise _unknown(run_id)
        return of_record(record, decode)

    async def _poll(self, run_id: RunId, decode: Callable[[str | None], T], timeout: float | None) -> Run[T]:
        import asyncio

        async with asyncio.timeout(timeout):
            watch = self._target.connection().watch
            while not (run := await self._retrieve(run_id, decode)).is_completed:
                end = watch.expect(run_id)
                try:
                    await watch.look([run_id])
                    await end
                finally:
                    end.cancel()
            return run

    async def _follow(self, task: Triggerable[T], request: TriggerRequest, timeout: Duration | None) -> Run[T]:
        """Trigger a run and return it when it has ended; expected before it exists, so that no end can be missed."""
        import asyncio

        async with asyncio.timeout(None if timeout is None else seconds(timeout)):
            end = self._target.connection().watch.expect(request.run_id)
            try:
                handle = await task._start(request)
                if handle.id == request.run_id:
                    await end
            finally:
                end.cancel()
            return await self._poll(handle.id, task.decode, None)

    async def _page(self, selection: RunSelection, before: RunId | None, limit: int) -> RunPage:
        records = await self._target.connection().backend.list_runs(selection, before=before, limit=limit)
        is_last = len(records) < limit
        return RunPage(
            runs=tuple(of_record(record, _plain) for record in records),
            read_next=None if is_last else lambda: self._page(selection, records[-1].id, limit),
        )

    async def _cancel(self, run_id: RunId, reason: str) -> bool:
        backend = self._target.connection().backend
        (is_cancelled,) = await backend.cancel_runs([run_id], reason)
        if is_cancelled is None:
            raise _unknown(run_id)
        return is_cancelled

    async def _replay(self, request: ReplayRequest, decode: Callable[[str | None], T]) -> RunHandle[T]:
        from detent.protocol.refusal import Refused, to_error

        task_id = (await self._retrieve(request.replay_of, _plain)).task_id
        backend = self._target.connection().backend
        (answer,) = await backend.replay_runs([request])
        if isinstance(answer, Refused):
            raise to_error(answer)
        return RunHandle(answer.run_id, task_id, answer.is_cached, decode=decode)

    async def _reschedule(self, run_id: RunId, delay: When, decode: Callable[[str | None], T]) -> Run[T]:
        from detent.protocol.refusal import Refused, to_error
        from detent.protocol.runs import Rescheduling

        backend = self._target.connection().backend
        (answer,) = await backend.reschedule_runs([Rescheduling(run_id=run_id, delay=delay)])
        if answer is None:
            raise _unknown(run_id)
        if isinstance(answer, Refused):
            raise to_error(answer)
        return of_record(answer, decode)


class RunsSync:
    """`runs` as blocking calls."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self.list = blocking(runs.list)
        self.cancel = blocking(runs.cancel)
        self.add_tags = blocking(runs.add_tags)
        self.update_metadata = blocking(runs.update_metadata)

    @cached_property
    def bulk(self) -> BulkSync:
        """`runs.bulk` as blocking calls."""
        return self._runs.bulk.sync

    def logs(self, run: RunHandle[Any] | str, *, follow: bool = False) -> Iterator[RunLog]:
        """`runs.logs` as an iterator that blocks."""
        return self._runs.logs(run, follow=follow).in_thread()

    # A twin derived from an overloaded method would lose its overloads: these have one line for each.

    @overload
    def retrieve(self, run: RunHandle[T]) -> Run[T]: ...
    @overload
    def retrieve(self, run: str) -> Run[JsonValue]: ...
    def retrieve(self, run: RunHandle[Any] | str) -> Run[Any]:
        """`runs.retrieve` as a blocking call."""
        return blocking(self._runs.retrieve)(run)

    @overload
    def poll(self, run: RunHandle[T], *, timeout: Duration | None = None) -> Run[T]: ...
    @overload
    def poll(self, run: str, *, timeout: Duration | None = None) -> Run[JsonValue]: ...
    def poll(self, run: RunHandle[Any] | str, *, timeout: Duration | None = None) -> Run[Any]:
        """`runs.poll` as a blocking call."""
        return blocking(self._runs.poll)(run, timeout=timeout)

    @overload
    def replay(
        self, run: RunHandle[T], *, payload: object = None, **options: Unpack[TriggerOptions]
    ) -> RunHandle[T]: ...
    @overload
    def replay(
        self, run: str, *, payload: object = None, **options: Unpack[TriggerOptions]
    ) -> RunHandle[JsonValue]: ...
    def replay(
        self, run: RunHandle[Any] | str, *, payload: object = None, **options: Unpack[TriggerOptions]
    ) -> RunHandle[Any]:
        """`runs.replay` as a blocking call."""
        return blocking(self._runs.replay)(run, payload=payload, **options)

    @overload
    def reschedule(self, run: RunHandle[T], delay: Duration | datetime) -> Run[T]: ...
    @overload
    def reschedule(self, run: str, delay: Duration | datetime) -> Run[JsonValue]: ...
    def reschedule(self, run: RunHandle[Any] | str, delay: Duration | datetime) -> Run[Any]:
        """`runs.reschedule` as a blocking call."""
        return blocking(self._runs.reschedule)(run, delay)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunPage:
    """Some runs, and the way to the next. Iterate over it for these; with `async for`, for these and all that follow."""

    runs: tuple[Run[JsonValue], ...]
    read_next: Callable[[], Coroutine[Any, Any, RunPage]] | None = field(repr=False)
    """None on the last page."""

    label: ClassVar[str] = "page"

    @property
    def has_next_page(self) -> bool:
        return self.read_next is not None

    async def next_page(self) -> RunPage | None:
        """Return the page after this one; None after the last."""
        return None if self.read_next is None else await self.read_next()

    @property
    def sync(self) -> RunPageSync:
        """All runs from this page on, by a plain `for`; and `next_page` as a blocking call."""
        return RunPageSync(self)

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run[JsonValue]]:
        return iter(self.runs)

    async def __aiter__(self) -> AsyncIterator[Run[JsonValue]]:
        page: RunPage | None = self
        while page is not None:
            for run in page.runs:
                yield run
            page = await page.next_page()


class RunPageSync:
    """A page of runs, for code without an event loop."""

    def __init__(self, page: RunPage) -> None:
        self._page = page
        self.next_page = blocking(page.next_page)

    def __iter__(self) -> Iterator[Run[JsonValue]]:
        page: RunPage | None = self._page
        while page is not None:
            yield from page
            page = page.sync.next_page()


class ListCall(Awaited[RunPage]):
    """What `runs.list` returns: await it for a page, or iterate with `async for` over all runs."""

    __slots__ = ()

    async def __aiter__(self) -> AsyncIterator[Run[JsonValue]]:
        async for run in await self:
            yield run


def _plain(text: str | None) -> JsonValue:
    return _json(text)


def _decoder_of(run: object) -> Callable[[str | None], Any]:
    return run.decode if isinstance(run, RunHandle) else _plain


def _id_of(run: object) -> RunId:
    return run.id if isinstance(run, RunHandle) else _checked(run)


def _checked(run_id: object) -> RunId:
    if not isinstance(run_id, str):
        raise TypeError(f"a run is named by its id or its handle, not by {run_id!r}")
    ids.decode("run", run_id)
    return RunId(run_id)


def _replay_request(replay_of: RunId, payload: object, options: Mapping[str, object]) -> ReplayRequest:
    from detent.protocol.runs import ReplayRequest

    return ReplayRequest(
        run_id=new_run_id(),
        replay_of=replay_of,
        payload=None if payload is None else schema.PLAIN.encode(payload, what="the payload of the replay"),
        **to_fields(options),  # type: ignore[arg-type]  # each was made for its field by `options.to_fields`
    )


def _unknown(run_id: RunId) -> NotFoundError:
    return NotFoundError(f"there is no run {run_id} in this environment", code="run_not_found")


def _limit(limit: int) -> int:
    if not 1 <= limit <= LARGEST_PAGE:
        raise ValueError(f"limit={limit!r} must be 1 to {LARGEST_PAGE}; use `async for` to go through more")
    return limit


runs = Runs()
