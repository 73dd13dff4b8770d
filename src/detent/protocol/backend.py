"""Every operation that a caller may ask of detent: the seam between the SDK or a worker and the engine.

A backend serves one environment. Operations take lists and answer one for one; one run is a list of one. Each may be
repeated after a lost reply without doubling anything: callers make the ids, worker calls carry the fence, journal entries
carry their place. What a caller got wrong comes back as `Refused`, what it no longer holds as `Stale`; a backend out of reach
raises `ApiConnectionError`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from detent.protocol.attempts import AttemptOutcome, Completed
from detent.protocol.batches import BatchChunk, BatchCreated, BatchCreation, BatchRecord, ChunkTaken
from detent.protocol.bulk import BulkRecord, BulkRequest
from detent.protocol.children import ChildRequest, ChildTriggered
from detent.protocol.environments import Environment, EnvironmentRecord, EnvironmentType
from detent.protocol.envvars import EnvVar, EnvVarValue, PutMode, Variables
from detent.protocol.fence import Holder, Stale
from detent.protocol.final_hooks import HooksLease, HooksRequest
from detent.protocol.flow import LimitChange, LimitKind, LimitRecord, LimitRef
from detent.protocol.health import HealthRecord
from detent.protocol.ids import BatchId, BulkId, RunId, ScheduleId, WaitpointId
from detent.protocol.journal import JournalEntry, JournalRead, Recorded, StepRecord
from detent.protocol.leases import HandBack, Lease, LeaseRequest
from detent.protocol.logs import LogLine, StoredLog
from detent.protocol.metadata import MetadataUpdate, MetadataUpdated, RunAnnotated, RunAnnotation
from detent.protocol.refusal import Refused
from detent.protocol.registration import RegisteredTask, WorkerRegistration
from detent.protocol.retention import RetentionRecord
from detent.protocol.runs import ReplayRequest, Rescheduling, RunOutcome, RunRecord
from detent.protocol.schedules import ScheduleChange, ScheduleRecord, ScheduleRequest
from detent.protocol.selection import RunSelection
from detent.protocol.sessions import Renewal, Renewed, SessionBeat, SessionEnd, SessionEnded, SessionOpening
from detent.protocol.tags import RunTagging, TagsAdded, TagsAddition
from detent.protocol.tokens import TokenCompletion, TokenCreated, TokenFilter, TokenRecord, TokenRequest
from detent.protocol.triggering import Triggered, TriggerRequest
from detent.protocol.waits import Delivery, Pending, Suspended, Suspension, Wait, WaitResult
from detent.protocol.wake_ups import Wake


class CallerBackend(Protocol):
    """What anybody may ask, from a web request or a script."""

    async def trigger(
        self, requests: Sequence[TriggerRequest], *, is_repeat: bool = False
    ) -> list[Triggered | Refused]:
        """Make runs. `is_repeat`: the same ids were sent before and no answer came; their runs may even be over."""
        ...

    async def create_batch(self, creation: BatchCreation) -> BatchCreated | Stale:
        """Make a batch before its items. One that is not sealed 30 minutes after it was last given any is aborted."""
        ...

    async def trigger_batch(self, chunk: BatchChunk) -> ChunkTaken | Stale | Refused:
        """Take items of a batch. An item that cannot be triggered fails alone; an index beyond the total refuses them all."""
        ...

    async def abort_batch(self, batch_id: BatchId, reason: str) -> None:
        """End a batch that could not be given whole; runs already made go on, a waiter wakes with an error."""
        ...

    async def retrieve_batches(self, batch_ids: Sequence[BatchId]) -> list[BatchRecord | None]: ...

    async def retrieve_runs(self, run_ids: Sequence[RunId]) -> list[RunRecord | None]: ...

    async def list_runs(
        self, selection: RunSelection, *, before: RunId | None = None, limit: int = 25
    ) -> list[RunRecord]:
        """Return the first *limit* of the selected runs older than *before*, newest first."""
        ...

    async def read_outcomes(self, run_ids: Sequence[RunId]) -> list[RunOutcome | None]:
        """Return how each run ended; None for one that has not, or is not there."""
        ...

    async def watch_runs(self, run_ids: Sequence[RunId]) -> list[RunOutcome | None]:
        """Return the outcome of each run that is final; the end of the others will be announced by `listen`."""
        ...

    async def cancel_runs(self, run_ids: Sequence[RunId], reason: str) -> list[bool | None]:
        """Cancel runs with all their children. True: cancelled now; False: was already final; None: no such run."""
        ...

    async def replay_runs(
        self, requests: Sequence[ReplayRequest], *, is_repeat: bool = False
    ) -> list[Triggered | Refused]: ...

    async def reschedule_runs(self, requests: Sequence[Rescheduling]) -> list[RunRecord | Refused | None]:
        """Move the dates of delayed runs; `Refused` for one that is not delayed any more, None when there is no such run."""
        ...

    async def list_limits(self, kind: LimitKind, *, offset: int = 0, limit: int = 25) -> tuple[list[LimitRecord], int]:
        """Return a page of the queues or limits by name, with live counts; and how many there are."""
        ...

    async def retrieve_limits(self, refs: Sequence[LimitRef]) -> list[LimitRecord | None]: ...

    async def change_limits(self, changes: Sequence[LimitChange]) -> list[LimitRecord | Refused]:
        """Override, reset, pause and resume, one after the other; what may start because of it is announced."""
        ...

    async def create_bulk_action(self, request: BulkRequest) -> BulkRecord:
        """Begin a bulk action; the workers carry it out."""
        ...

    async def retrieve_bulk_actions(self, bulk_ids: Sequence[BulkId]) -> list[BulkRecord | None]: ...

    async def list_bulk_actions(self, *, before: BulkId | None = None, limit: int = 25) -> list[BulkRecord]:
        """Return bulk actions, newest first, older than *before*."""
        ...

    async def abort_bulk_action(self, bulk_id: BulkId) -> None:
        """Stop a bulk action after the part that is under way; one that is over stays as it is."""
        ...

    async def create_schedules(self, requests: Sequence[ScheduleRequest]) -> list[ScheduleRecord | Refused]:
        """Make schedules; one whose deduplication key has a schedule changes that one."""
        ...

    async def retrieve_schedules(self, schedule_ids: Sequence[ScheduleId]) -> list[ScheduleRecord | None]: ...

    async def list_schedules(self, *, offset: int = 0, limit: int = 25) -> tuple[list[ScheduleRecord], int]:
        """Return a page of schedules, the oldest first, and how many there are."""
        ...

    async def change_schedules(self, changes: Sequence[ScheduleChange]) -> list[ScheduleRecord | Refused]:
        """Change imperative schedules, and return each as it is then; a deleted one as it was."""
        ...

    async def retrieve_environment(self) -> Environment:
        """Return the environment that this backend serves. It is made by the first call of any kind."""
        ...

    async def list_environments(self) -> list[EnvironmentRecord]:
        """Return all environments of the database, in the order in which they were made. Reads every run that is not over."""
        ...

    async def create_environment(self, name: str, kind: EnvironmentType | None) -> EnvironmentRecord | Refused:
        """Make an environment, or bring an archived one back. Without a kind, its slug says it."""
        ...

    async def archive_environment(self, name: str) -> EnvironmentRecord | Refused:
        """Refuse what callers would write to an environment, and start nothing in it any more. Within 2 s all know.

        What executes goes on, what is queued stays. Calls that write raise `ConflictError` from then on.
        """
        ...

    async def list_envvars(self, names: Sequence[str] | None = None, *, environment: str | None = None) -> list[EnvVar]:
        """Return variables by name: those that are named, or all. Without an environment, of this one."""
        ...

    async def put_envvars(
        self, values: Sequence[EnvVarValue], mode: PutMode, *, environment: str | None = None
    ) -> list[bool]:
        """Write variables; what may not be there stays as it is and is answered False. Names differ."""
        ...

    async def delete_envvars(self, names: Sequence[str], *, environment: str | None = None) -> list[bool]:
        """Remove variables; False: there was none."""
        ...

    async def rotate_envvars(self) -> int:
        """Seal the variables of all environments with the newest key; return how many were sealed with another."""
        ...

    async def reset_idempotency_key(self, task_id: str, key: str) -> bool:
        """Forget a key; False when there was none."""
        ...

    async def create_tokens(self, requests: Sequence[TokenRequest]) -> list[TokenCreated | Refused | Stale]:
        """Make tokens. A key that a wait for a moment holds is `Refused`."""
        ...

    async def complete_tokens(self, completions: Sequence[TokenCompletion]) -> list[bool | None]:
        """Complete tokens; who waits for them wakes. True: now; False: it was completed before; None: no such token."""
        ...

    async def retrieve_tokens(self, token_ids: Sequence[WaitpointId]) -> list[TokenRecord | None]: ...

    async def list_tokens(self, query: TokenFilter) -> list[TokenRecord]: ...

    async def read_logs(self, run_id: RunId, *, after: int = -1, limit: int = 1000) -> list[StoredLog]:
        """Return log lines in order; `after` skips that many lines plus one."""
        ...

    async def tag_runs(self, additions: Sequence[RunTagging]) -> list[TagsAdded | None]:
        """Add tags to runs, live or over: all, or none where there would be too many. None: there is no such run."""
        ...

    async def annotate_runs(self, annotations: Sequence[RunAnnotation]) -> list[RunAnnotated | None]:
        """Change the metadata of runs, live or over. None: there is no such run."""
        ...

    async def read_journal(self, run_id: RunId, *, after: int = 0, limit: int = 500) -> list[JournalEntry] | None:
        """Return a page of what a run that is not over has recorded, after that number; None: there is no such run."""
        ...

    async def list_tasks(self) -> list[RegisteredTask]: ...

    async def read_retention(self) -> RetentionRecord:
        """Return how long runs are kept, and the tables that hold those that are over."""
        ...

    async def read_health(self) -> HealthRecord:
        """Return what stands in the way of runs, and what nobody sees to. Reads every run that is not over."""
        ...

    def listen(self) -> AbstractAsyncContextManager[AsyncIterator[Wake]]:
        """Yield wake-ups as they come, an empty one after each reconnection and each second without any."""
        ...

    async def close(self) -> None: ...


class WorkerBackend(CallerBackend, Protocol):
    """What a worker may ask besides, about the runs it holds."""

    async def register_worker(self, registration: WorkerRegistration) -> str:
        """Make the tasks of this code known; return the version's name. Releases runs that waited for them."""
        ...

    async def open_session(self, opening: SessionOpening) -> None: ...

    async def renew_sessions(self, renewals: Sequence[Renewal]) -> list[Renewed]: ...

    async def end_session(self, end: SessionEnd) -> SessionEnded:
        """End a session and hand back its runs. A second time does nothing."""
        ...

    async def list_sessions(self) -> list[SessionBeat]:
        """The sessions that are not ended, with their heartbeat counters, for the reaper."""
        ...

    async def read_variables(self, known: str | None) -> Variables | None:
        """Return what runs are given, secrets, too; None when its fingerprint is *known*."""
        ...

    def hear(self, listener: Callable[[Wake], bool]) -> None:
        """Tell *listener* at once what this backend's own calls made ready, before others hear of it.

        It answers True when it takes care of that itself, and then nobody else is told. A backend that does not know what
        its calls made ready never calls it.
        """
        ...

    async def lease(self, request: LeaseRequest) -> list[Lease]: ...

    async def start_attempts(self, holders: Sequence[Holder]) -> None:
        """Show leased runs as EXECUTING. Optional: a completion carries it."""
        ...

    async def complete_attempts(self, outcomes: Sequence[AttemptOutcome]) -> list[Completed | Stale]: ...

    async def end_cancelled(self, holders: Sequence[Holder]) -> None:
        """Say that the code of runs cancelled or timed out while executing has truly ended."""
        ...

    async def lease_hooks(self, request: HooksRequest) -> list[HooksLease]:
        """Lease runs that are over for their final hooks alone: those that no live attempt has called."""
        ...

    async def end_hooks(self, holders: Sequence[Holder]) -> list[None]:
        """Say that the final hooks of runs were called. What is not said so is called again by another worker."""
        ...

    async def hand_back(self, runs: Sequence[HandBack]) -> None:
        """Give up runs that were not finished (drain); no attempt is used up. Also forgets runs that wait in memory.

        One that has begun and must not begin again (`OnLost.FAIL`) ends CRASHED.
        """
        ...

    async def trigger_children(self, requests: Sequence[ChildRequest]) -> list[ChildTriggered | Stale | Refused]: ...

    async def wait_for(self, requests: Sequence[Wait]) -> list[WaitResult | Pending | Suspended | Refused | Stale]:
        """Have runs wait for moments and tokens. A token that is not there is `Refused`."""
        ...

    async def suspend(self, requests: Sequence[Suspension]) -> list[Suspended | Pending | Stale]:
        """Take the slot from runs that stand in waits. `Pending`: something came meanwhile, `collect` it."""
        ...

    async def collect(self, holders: Sequence[Holder]) -> list[Delivery]:
        """Return what came for waits of executing runs, until they suspend also what was returned before."""
        ...

    async def record_steps(self, records: Sequence[StepRecord]) -> list[Recorded | Stale]: ...

    async def read_journals(
        self, reads: Sequence[JournalRead], *, limit: int = 500
    ) -> list[list[JournalEntry] | Stale]:
        """Return a page of each run's present attempt in the order of recording; and the steps of its earlier attempts."""
        ...

    async def read_batch_results(self, batch_id: BatchId, *, after: int = -1, limit: int = 500) -> list[RunOutcome]:
        """Return the outcomes of a finished batch in the order of its items, skipping up to index `after`."""
        ...

    async def append_logs(self, lines: Sequence[LogLine]) -> None:
        """Store log lines; lines of stale runs are dropped."""
        ...

    async def update_metadata(self, updates: Sequence[MetadataUpdate]) -> list[MetadataUpdated | Stale]:
        """Change the metadata of runs, in order, each operation once; of an attempt that sends one call at a time."""
        ...

    async def add_tags(self, additions: Sequence[TagsAddition]) -> list[TagsAdded | Stale]:
        """Add tags to runs: all of an addition, or none where there would be too many."""
        ...


Backend = WorkerBackend
