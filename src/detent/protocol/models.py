"""The values that cross between callers (SDK, worker, CLI) and a backend. Payloads, outputs and metadata are JSON text."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from detent.protocol.cron import Cron
from detent.protocol.flow import Debouncing, LimitDeclaration
from detent.protocol.ids import BatchId, RunId, ScheduleId, SessionId, WaitpointId
from detent.protocol.limits import WAIT_KEY_LIMIT
from detent.protocol.retention import RetentionRule
from detent.protocol.run_error import RunError
from detent.protocol.status import RunStatus, TokenStatus

When: TypeAlias = timedelta | datetime
"""A moment: so long from now by the database's clock, or an aware date."""


class Isolation(StrEnum):
    """Where a run executes: what a lease asks room for."""

    ASYNC = "async"
    THREAD = "thread"
    PROCESS = "process"


class OnLost(StrEnum):
    """What becomes of a run whose code had begun when its worker was lost."""

    RESTART = "restart"
    FAIL = "fail"
    """At most once: it ends CRASHED and is not tried again. Where nobody can tell whether it had begun, it counts as begun."""


# ---- who calls -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A worker speaking about a run it holds. Refused (`Stale`) when the fence is not the run's present one."""

    run_id: RunId
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """The answer to a call about a run that the caller no longer holds; nothing was written."""

    run_id: RunId


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The answer to one request of many that was wrong. `status` and `code` as in `ApiError`."""

    status: int
    code: str
    message: str
    details: tuple[str, ...] = ()


# ---- triggering ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """`key` is the stored hash (64 hex digits); `user_key` and `scope` are what the user gave, for display."""

    key: str
    user_key: str
    scope: str
    ttl: timedelta = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """When an operation was asked for, counted in the answers that the run's code had been given: `answers` of them.

    `seen` are the operations of the last of these, in order; None says that they came in the order of recording. Entry by
    entry this tells the order of all answers, which a replay repeats.
    """

    answers: int = 0
    seen: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The place in a run's code that a durable operation comes from.

    `operation` is its path in the attempt's journal. With `wait`, the run is told when what it asked for is done; with
    `suspends` it has nothing else to do meanwhile, and gives its slot back at once.
    """

    holder: Holder
    operation: str
    wait: bool = False
    suspends: bool = True
    stamp: Stamp = Stamp()
    version: str | None = None
    """What executes the run: children that it waits for prefer the same version, while a worker of it lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerRequest:
    """One run to make. The caller makes `run_id`, so that a request repeated after a lost reply does not double."""

    run_id: RunId
    task_id: str
    payload: str | None = None
    """JSON text; None when the task takes no payload."""
    is_validated: bool = False
    """True when the caller held the task and has validated; else the engine checks against the registered JSON Schema."""
    delay: When | None = None
    queue: str | None = None
    """None is the queue that the task has registered, or its own."""
    concurrency_key: str | None = None
    limits: tuple[str, ...] | None = None
    """Names of limits that replace the task's named ones; its inline one stays."""
    priority: float = 0.0
    ttl: float | None = None
    """Seconds in the queue after which a run that never started expires; 0 is never, None is the task's."""
    version: str | None = None
    """Only workers of this version may run it."""
    debounce: Debouncing | None = None
    max_attempts: int | None = None
    max_duration: float | None = None
    """Seconds."""
    machine: str | None = None
    """None is the task's."""
    tags: tuple[str, ...] = ()
    metadata: str | None = None
    idempotency: Idempotency | None = None
    replay_of: RunId | None = None
    is_test: bool = False
    is_watched: bool = False
    """The caller will wait for the result from outside a run: its end is announced (`Backend.listen`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Triggered:
    """`run_id` is the run that stands for the request: a new one, or with `is_cached` the one its key already had."""

    run_id: RunId
    is_cached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchChunk:
    """Some items of a batch, by index; the first chunk to arrive makes the batch, unless `create_batch` has.

    Chunks may come in any order, and again: items are de-duplicated by index. Once `total`, told by a chunk or at the creation,
    is reached, the batch is sealed. With an origin that waits, the chunk that tells the total suspends the run until every
    item is final.
    """

    batch_id: BatchId
    items: tuple[tuple[int, TriggerRequest], ...]
    total: int | None = None
    origin: Origin | None = None


# ---- waits -----------------------------------------------------------------------------------------------------------


class OperationKind(StrEnum):
    TRIGGER = "trigger"
    CHILD = "child"
    BATCH = "batch"
    BATCH_WAIT = "batch_wait"
    TIME = "time"
    TOKEN = "token"
    """A wait for a token."""
    NEW_TOKEN = "new_token"
    STEP = "step"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """How a run ended, for whoever waited for it."""

    run_id: RunId
    task_id: str
    status: RunStatus
    output: str | None = None
    error: RunError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitResult:
    """What a wait came to. `child` is set for CHILD, `output` (JSON text) for TOKEN; a batch's results are read with
    `read_batch_results`.

    `error` is set when the wait itself failed: the batch was aborted, the token timed out.
    """

    operation: str
    child: RunOutcome | None = None
    output: str | None = None
    error: RunError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """What the run waits for is not there yet. It keeps its slot; the result is announced, and comes with `collect`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended:
    """The run is WAITING and holds no slot; its result comes with the lease that resumes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspension:
    """A run of which nothing goes on: all its code stands in waits. `until`: a timer in its memory ends the first of them then.

    `delivered` are operations whose results came with `collect`, and were given to the code.
    """

    holder: Holder
    until: timedelta | None = None
    delivered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Results that an executing run waits for."""

    holder: Holder
    results: tuple[WaitResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkTaken:
    """One answer an item, in the order given, and how the batch stands.

    `accepted` of these items were new, `deduplicated` known by their index; a sealed batch takes none. `enqueued` of
    `expected` items are there by now. `wait`: how the origin's wait stands, once the batch is sealed. An item that could not be
    triggered is answered like the others: its run has failed.
    """

    items: tuple[Triggered, ...]
    accepted: int
    deduplicated: int
    enqueued: int
    expected: int | None
    is_sealed: bool
    wait: WaitResult | Pending | Suspended | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildTriggered:
    """Answer to a trigger from inside a run. `wait`: None when the origin does not wait."""

    triggered: Triggered
    wait: WaitResult | Pending | Suspended | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRequest:
    request: TriggerRequest
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitKey:
    """An idempotency key of a token or of a wait for a moment, as the user gave it. Without `ttl` it is kept for ever.

    Both share one name space in an environment: what has a key answers everybody who comes with it.
    """

    key: str
    ttl: timedelta | None = None

    def __post_init__(self) -> None:
        size = len(self.key.encode())
        if not 0 < size <= WAIT_KEY_LIMIT:
            raise ValueError(f"an idempotency key of a wait has 1 to {WAIT_KEY_LIMIT:,} bytes, not {size:,}; hash a longer one")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeWait:
    """Wait for a moment. With a live `key`, for the moment that it stands for: at once, when that has come."""

    origin: Origin
    until: When
    waitpoint_id: WaitpointId
    key: WaitKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWait:
    """Wait for a token, which exists."""

    origin: Origin
    waitpoint_id: WaitpointId


Wait: TypeAlias = TimeWait | TokenWait


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What a step came to, as JSON text: its result, or what it raised."""

    origin: Origin
    fingerprint: str
    output: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The step is in the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRead:
    """Asks for a page of a run's journal: the entries after that number."""

    holder: Holder
    after: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """A recorded operation. `fingerprint` says what was asked for (task ids, kind of wait), to notice code that changed.

    `ref` is the public id of what was made (run, batch, waitpoint). `result` is None while a wait is pending, and for
    operations that do not wait; a step has `output` or `error`. `number` is the order of recording in the run.
    """

    operation: str
    kind: OperationKind
    fingerprint: str
    ref: str
    number: int = 0
    attempt: int = 1
    """Of steps, those of earlier attempts are there, too."""
    stamp: Stamp = Stamp()
    recorded_at: datetime | None = None
    is_cached: bool = False
    is_sealed: bool = True
    """False for a batch whose items had not all been given: it goes on from its first index, without doubling."""
    result: WaitResult | None = None
    output: str | None = None
    """Of a step its result; of a new token its secret."""
    error: str | None = None


# ---- tokens ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A token to make. The caller makes `waitpoint_id`, so that a request repeated after a lost reply does not double.

    With an origin it is recorded in the journal of the run, and asked for again at that place it is the same token.
    """

    waitpoint_id: WaitpointId
    timeout: When | None = None
    tags: tuple[str, ...] = ()
    key: WaitKey | None = None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCreated:
    """The token that stands for the request: a new one, or with `is_cached` the one its key already had.

    Whoever knows its `secret`, a part of its URL, may complete it.
    """

    waitpoint_id: WaitpointId
    secret: str
    is_cached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCompletion:
    """What a token comes to: an output (JSON text), or an error."""

    waitpoint_id: WaitpointId
    output: str | None = None
    error: RunError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A token as it is read. `output` is JSON text, and left out of lists."""

    id: WaitpointId
    status: TokenStatus
    tags: tuple[str, ...]
    created_at: datetime
    timeout_at: datetime | None
    completed_at: datetime | None
    idempotency_key: str | None
    idempotency_key_expires_at: datetime | None
    secret: str
    output: str | None
    error: RunError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFilter:
    """Newest first, in pages. Empty tuples filter nothing; of `tags` one must be there."""

    statuses: tuple[TokenStatus, ...] = ()
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    before: WaitpointId | None = None
    """Cursor: tokens older than this one."""
    limit: int = 25


# ---- leases ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to execute one attempt, or the rest of one, until the session ends.

    With `is_resumed` the database believes that this session still has the run in memory: `payload` and `metadata` are then
    left out, and `results` holds what it waited for. Otherwise the function starts from its top; with `has_journal` it
    replays (`read_journal`).
    """

    run_id: RunId
    fence: int
    attempt: int
    task_id: str
    isolation: Isolation
    payload: str | None
    is_resumed: bool
    has_journal: bool
    results: tuple[WaitResult, ...]
    created_at: datetime
    started_at: datetime
    queue: str
    concurrency_key: str | None
    priority: float
    tags: tuple[str, ...]
    metadata: str | None
    metadata_applied: str | None = None
    """What of an attempt's updates is in it: JSON of the attempt, and of the latest number of each place."""
    max_attempts: int | None
    max_duration: float | None
    idempotency_key: str | None
    version: str
    parent_run_id: RunId | None
    root_run_id: RunId | None
    batch_id: BatchId | None
    replay_of: RunId | None
    is_test: bool
    machine: str | None = None
    """As given at the trigger, or the one after it ran out of memory; None: its task's."""
    active: float = 0.0
    """Seconds executed under earlier leases, of all attempts."""
    attempt_active: float = 0.0
    """Those of this attempt, up to its latest wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HooksRequest:
    """`fence` is fresh and random for each call."""

    session_id: SessionId
    fence: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HooksLease:
    """The right to call the final hooks of a run that is over, and how it ended."""

    lease: Lease
    status: RunStatus
    output: str | None
    error: RunError | None
    number: int
    """Counts such leases of the run from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TagsAddition:
    """Tags that a run gives itself."""

    holder: Holder
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TagsAdded:
    """`count`: how many the run has now; when there would be more than the limit, none was added."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """`fence` is fresh and random for each call; every run leased by it carries it. `room` says how many of each kind fit.

    A run that must start alone (it was on the CPU when its process died) is leased only into PROCESS room.
    """

    session_id: SessionId
    fence: int
    room: dict[Isolation, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """`has_hooks`: the worker calls final hooks when this is recorded."""

    holder: Holder
    output: str | None
    has_hooks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The attempt raised. `retry_in` is the worker's word: None is never again; the engine still refuses beyond the limit."""

    holder: Holder
    error: RunError
    retry_in: When | None
    has_hooks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RanOutOfMemory:
    """The engine decides whether it is tried again: once, on the machine that its task names for this."""

    holder: Holder
    error: RunError
    has_hooks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut:
    holder: Holder
    error: RunError


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """The attempt could not be made at all (its task is not in this worker): SYSTEM_FAILURE, no retry."""

    holder: Holder
    error: RunError


AttemptOutcome: TypeAlias = Succeeded | Failed | RanOutOfMemory | TimedOut | Broken


@dataclass(frozen=True, slots=True, kw_only=True)
class HandBack:
    """A run that its worker gives up unfinished. `has_begun`: its code may have executed under this fence."""

    holder: Holder
    has_begun: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The outcome was recorded. `status` is final, or QUEUED when the run will be tried again."""

    run_id: RunId
    status: RunStatus


# ---- workers ---------------------------------------------------------------------------------------------------------


class FinalEnd(StrEnum):
    """The ends of a run that may have hooks."""

    SUCCESS = "success"
    FAILURE = "failure"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRegistration:
    task_id: str
    isolation: Isolation
    file_path: str
    queue: str
    retry: str
    """JSON of the retry policy: max_attempts, factor, min_timeout and max_timeout in seconds, randomize."""
    description: str = ""
    max_duration: float | None = None
    ttl: float | None = None
    """Seconds in the queue after which a run that never started expires; None is never."""
    limits: tuple[str, ...] = ()
    """Names of the limits that its runs hold: `task/<id>` for the inline one, then the named ones."""
    on_lost: OnLost = OnLost.RESTART
    final_hooks: tuple[FinalEnd, ...] = ()
    """The ends that have hooks: another worker than the one that executed the run may have to call them."""
    payload_schema: str | None = None
    """JSON Schema of the payload, as JSON text."""
    output_schema: str | None = None
    cron: Cron | None = None
    """When it runs by itself."""
    machine: str | None = None
    oom_machine: str | None = None
    """On which a run is tried once more that ran out of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRegistration:
    """A version of the code: its tasks, queues and limits. With `version` None the engine names it (YYYYMMDD.n); equal code is
    one version."""

    tasks: tuple[TaskRegistration, ...]
    limits: tuple[LimitDeclaration, ...] = ()
    """Queues, inline and named limits. Queues that only a task names need not be here."""
    retention: tuple[RetentionRule, ...] | None = None
    """Replaces the environment's rules, the default among them; None leaves them as they are."""
    version: str | None = None
    machines: tuple[str, ...] = ()
    """Names of machines that the code knows beside the presets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpening:
    session_id: SessionId
    version: str
    worker: str
    """Names the worker for people: host and pid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A sign of life of one runner, with what it really holds.

    Runs that the database assigns to the session but that are neither in `held` nor leased under a fence in `in_flight` (a
    lease call without an answer yet) came in a lost reply: they are handed back.
    """

    session_id: SessionId
    held: tuple[Holder, ...]
    in_flight: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """`is_alive` False: the session was ended by others, all its runs are gone. `lost`: runs of `held` that are not its own any
    more (handed on, cancelled and over). `cancelled`: held runs that were asked to stop."""

    session_id: SessionId
    is_alive: bool
    lost: tuple[RunId, ...] = ()
    cancelled: tuple[RunId, ...] = ()
    solo_waiting: int = 0
    """Ready runs of this environment that must start alone in a process of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnd:
    """A runner is gone. Its runs are handed back without using up an attempt, but for `suspects`: those on the CPU when it died.

    A suspect next starts alone; one that was already alone has crashed, with `error`. `is_lost`: found dead by another
    process (counts towards the five losses after which a run is given up), guarded by the heartbeat seen (`beat`).
    `unanswered`: fences of lease calls whose answer the runner never took: what they brought has not begun.
    """

    session_id: SessionId
    suspects: tuple[RunId, ...] = ()
    unanswered: tuple[int, ...] = ()
    error: RunError | None = None
    is_lost: bool = False
    beat: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded:
    """What became of a session's runs. `returned`: how many were handed back. `alone`: for each that must start in a process of
    its own, the seconds until it may."""

    returned: int
    alone: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionBeat:
    session_id: SessionId
    beat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    holder: Holder
    attempt: int
    place: str
    """The operation of the run's journal that comes next where the line was written."""
    number: int
    """Counts the lines of a place from 0: a line sent twice, or written again by a replay, is kept once."""
    at: datetime
    level: str
    message: str
    fields: str | None = None
    """JSON text of an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLog:
    attempt: int
    at: datetime
    level: str
    message: str
    fields: str | None


# ---- wake-ups --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """A hint, never the truth: it can be lost, and says only where to look.

    `ready`: about so many runs became ready to start. `resumed`: sessions whose waiting runs became ready. `cancelled`: runs
    held by a worker that were asked to stop. `finished`: watched runs that are over.
    """

    ready: int = 0
    task_ids: tuple[str, ...] = ()
    """The tasks of the ready runs, where they are known."""
    resumed: tuple[SessionId, ...] = ()
    cancelled: tuple[RunId, ...] = ()
    finished: tuple[RunId, ...] = ()


# ---- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingReason:
    """Why a run is not running: a code with its facts, and the same in words."""

    code: str
    text: str
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """An attempt that failed and was followed by another."""

    number: int
    started_at: datetime | None
    finished_at: datetime
    error: RunError


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as it is read. `payload`, `output`, `metadata` are JSON text."""

    id: RunId
    task_id: str
    status: RunStatus
    attempt: int
    created_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    due_at: datetime | None
    queue: str
    concurrency_key: str | None
    limits: tuple[str, ...] | None
    """Names given at the trigger; None: the task's."""
    priority: float
    ttl: float | None
    """Seconds; None: the task's, if it has one."""
    expires_at: datetime | None
    tags: tuple[str, ...]
    metadata: str | None
    payload: str | None
    output: str | None
    error: RunError | None
    idempotency_key: str | None
    max_attempts: int | None
    max_duration: float | None
    version: str | None
    parent_run_id: RunId | None
    root_run_id: RunId | None
    batch_id: BatchId | None
    replay_of: RunId | None
    schedule_id: ScheduleId | None
    is_test: bool
    machine: str | None
    """On which it executes, or has; before its first lease as it was triggered. None: on none."""
    given_machine: str | None
    """As it was triggered, or the one after it ran out of memory; None: its task's."""
    usage_duration: float
    """Seconds for which it has been executed, over all attempts."""
    losses: int
    """How often a worker died or was lost under this run."""
    waits: int
    """How often it suspended."""
    waiting_reason: WaitingReason | None
    attempts: tuple[AttemptRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Newest first, in pages. Empty tuples filter nothing; `tags` must all be there."""

    statuses: tuple[RunStatus, ...] = ()
    task_ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None
    parent_run_id: RunId | None = None
    batch_id: BatchId | None = None
    before: RunId | None = None
    """Cursor: runs older than this one."""
    limit: int = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredTask:
    task_id: str
    isolation: Isolation
    file_path: str
    queue: str
    description: str
    version: str
    payload_schema: str | None
    has_live_worker: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescheduling:
    """Another date for a run that is delayed."""

    run_id: RunId
    delay: When


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """A new run with the input of an old one; `payload` replaces it."""

    run_id: RunId
    replay_of: RunId
    payload: str | None = None
    is_watched: bool = False
