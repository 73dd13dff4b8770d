"""The run that the present code belongs to, as durable calls see it.

The worker makes one `RunScope` for each attempt and sets it in the context of the task's code; the namespaces (`wait`,
`batch`, task methods, `logger`) ask `current()` and go through it, so that what they do is journalled under the run's fence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from detent.errors import OutsideRunError

if TYPE_CHECKING:
    import asyncio
    import contextvars
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from concurrent.futures import Future

    from detent.protocol.backend import CallerBackend
    from detent.protocol.codec import JsonValue
    from detent.protocol.idempotency import Idempotency, WaitKey
    from detent.protocol.ids import BatchId, WaitpointId
    from detent.protocol.metadata import Document, MetadataOperation
    from detent.protocol.moment import When
    from detent.protocol.runs import RunOutcome
    from detent.protocol.tokens import TokenCreated, TokenRequest
    from detent.protocol.triggering import Triggered, TriggerRequest
    from detent.protocol.waits import WaitResult
    from detent.sdk.chunks import GivenBatch, Requests
    from detent.sdk.context import CancelSignal, Context
    from detent.sdk.usage import Usage

R = TypeVar("R")


class RunScope(Protocol):
    """One attempt, from inside. Every method may be called from the run's own asyncio tasks only, on the runner's loop.

    For a task written as plain `def`, the blocking twins carry the call from its thread to `loop`.
    """

    @property
    def context(self) -> Context: ...

    @property
    def signal(self) -> CancelSignal: ...

    @property
    def metadata(self) -> str | None:
        """The run's metadata as the attempt began, as JSON text."""
        ...

    @property
    def locals(self) -> dict[str, object]:
        """The values of `Local`s, by their names."""
        ...

    @property
    def document(self) -> RunDocument:
        """The run's metadata as it is now."""
        ...

    async def add_tags(self, tags: tuple[str, ...]) -> None:
        """Add tags to the run. Raises `TooManyTagsError`, with none added."""
        ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    def carry_out(self, coroutine: Coroutine[Any, Any, R]) -> Future[R]:
        """Await *coroutine* on the loop, at the place in the code where the calling thread is.

        Raises `OutsideRunError` in a thread that the run's own code has started.
        """
        ...

    @property
    def backend(self) -> CallerBackend: ...

    @property
    def is_replaying(self) -> bool:
        """Whether the next operation that the calling code asks for was recorded."""
        ...

    async def trigger(self, request: TriggerRequest) -> Triggered:
        """Trigger, recorded in the journal. Raises the `ApiError` of a refusal."""
        ...

    async def trigger_and_wait(self, request: TriggerRequest) -> RunOutcome:
        """Trigger a child and suspend until it is final."""
        ...

    async def trigger_batch(self, requests: Requests, key: Idempotency | None) -> GivenBatch:
        """Trigger many, recorded as one operation. The items are given to the batch that *key* stands for, if there is one."""
        ...

    async def trigger_batch_and_wait(self, requests: Requests) -> tuple[BatchId, Sequence[RunOutcome]]:
        """Trigger many and suspend until all are final; the outcomes are in the order given."""
        ...

    async def wait_until(self, until: When, *, key: WaitKey | None = None) -> None:
        """Suspend until a moment; up to 5 s of it is slept in the process, with the slot kept and the key not looked at.

        With a live key, until the moment that it stands for. Raises `ConflictError` when that is a token.
        """
        ...

    async def create_token(self, request: TokenRequest) -> TokenCreated:
        """Make a token, recorded in the journal; a replay gets the same one. Raises the `ApiError` of a refusal."""
        ...

    async def wait_for_token(self, token_id: WaitpointId) -> WaitResult:
        """Suspend until a token is completed or times out. Raises `NotFoundError` for one that is not there."""
        ...

    async def step(self, name: str, fingerprint: str, execute: Callable[[], Awaitable[str | None]]) -> str | None:
        """Carry out a step and record what it came to, or answer from the record; JSON text.

        `fingerprint` tells its arguments apart. What *execute* raises is recorded, too, and raised again by a replay.
        """
        ...

    def usage(self) -> Usage:
        """Return what the run has taken so far. May be called from any thread."""
        ...

    def check(self) -> None:
        """Raise what the code is to end with, once it has been told to end. May be called from any thread."""
        ...

    @property
    def last_turn(self) -> float:
        """When the runner's event loop last turned, on `time.monotonic`, to within a quarter of a second."""
        ...

    def log(self, level: str, message: str, fields: dict[str, object] | None = None) -> None:
        """Keep a log line with the run, if the configured level lets it through. May be called from any thread."""
        ...

    def capture(self, level: str, message: str, fields: dict[str, object] | None = None) -> None:
        """Keep a line that the run printed, or wrote by the standard library's logging, whatever level is configured."""
        ...

    def open_span(self, name: str, fields: dict[str, object]) -> OpenSpan | None:
        """Begin a span for those whom the worker tells; None where it tells nobody. May be called from any thread."""
        ...


class OpenSpan(Protocol):
    """A span that others begin in, until it ends."""

    def set(self, fields: dict[str, object]) -> None: ...

    def end(self, error: BaseException | None) -> None: ...


class RunDocument(Protocol):
    """A run's metadata. May be read and updated from any thread."""

    def read(self, key: str) -> JsonValue: ...

    def read_all(self) -> Document: ...

    def update(self, operation: MetadataOperation) -> None:
        """Change it at once here, and soon in the database. Raises `MetadataTooLargeError`, with nothing changed."""
        ...

    async def flush(self) -> None: ...

    async def refresh(self) -> None: ...


_current: ContextVar[RunScope | None] = ContextVar("detent_run", default=None)


def current() -> RunScope | None:
    return _current.get()


def current_in(context: contextvars.Context) -> RunScope | None:
    """Return the run that *context*, another than the present one, belongs to."""
    return context.get(_current)


def require(call: str) -> RunScope:
    """Return the present run; raises `OutsideRunError` naming *call* when there is none."""
    scope = _current.get()
    if scope is None:
        raise OutsideRunError(call)
    return scope


def enter(scope: RunScope) -> None:
    """Make *scope* the run of the present context (the worker calls it inside the context it made for the attempt)."""
    _current.set(scope)


@contextmanager
def entered(scope: RunScope) -> Iterator[None]:
    """Make *scope* the run of the present context for a while."""
    token = _current.set(scope)
    try:
        yield
    finally:
        _current.reset(token)
