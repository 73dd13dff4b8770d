"""The engine behind `detent.protocol.backend.Backend`: PostgreSQL, directly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from detent.engine import (
    attempts,
    batches,
    bulk,
    envvars,
    events,
    final_hooks,
    health,
    journal,
    limits,
    metadata,
    retention,
    runs,
    schedules,
    sessions,
    tags,
    tokens,
    trigger,
    waits,
)
from detent.engine.alarm import Alarm
from detent.engine.db import Db
from detent.engine.environments import archive, create, find, find_or_make, list_all, not_found
from detent.engine.envvars import Vault
from detent.engine.events import Notifier
from detent.engine.keyring import Keyring
from detent.engine.known_tasks import KnownTasks
from detent.engine.lanes import KnownLanes
from detent.engine.maintenance import Maintenance
from detent.engine.place import Place
from detent.protocol import environments
from detent.protocol.attempts import AttemptOutcome, Completed
from detent.protocol.batches import BatchChunk, BatchCreated, BatchCreation, BatchRecord, ChunkTaken
from detent.protocol.bulk import BulkKind, BulkRecord, BulkRequest
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
from detent.protocol.operations import Origin
from detent.protocol.refusal import Refused, to_error
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


def connect(
    database_url: str,
    *,
    environment: str = environments.DEFAULT,
    size: int = 2,
    patience: float | None = 15.0,
    listen_url: str | None = None,
    encryption_key: str | None = None,
) -> EngineBackend:
    """Return a backend on a database. Connections open at the first call, on the loop that makes it.

    `size`: connections at most, besides one for `listen`. `patience`: seconds a call outlasts a database that is away; None
    is for ever. `listen_url`: a direct connection for LISTEN when `database_url` goes through a pooler. `encryption_key`: of
    environment variables, one or several; None is what DETENT_ENCRYPTION_KEY says. Raises `ConfigError` for a bad name.
    """
    db = Db(database_url, size=size, patience=patience)
    return EngineBackend(db, environments.check(environment), listen_url or database_url, Keyring(encryption_key))


class EngineBackend:
    """One environment of one database, for one event loop. Satisfies `Backend`."""

    def __init__(self, db: Db, name: str, listen_url: str, keyring: Keyring) -> None:
        self._db, self._name, self._listen_url, self._keyring = db, name, listen_url, keyring
        self._notifier = Notifier(db)
        self._place: Place | None = None
        self._opening = asyncio.Lock()

    @property
    def maintenance(self) -> Maintenance:
        """The ticker of this database, to run beside a worker or a server."""
        return Maintenance(self._db)

    async def close(self) -> None:
        if self._place is not None:
            self._place.alarm.close()
        await self._notifier.close()
        await self._db.close()

    # ---- callers

    async def trigger(
        self, requests: Sequence[TriggerRequest], *, is_repeat: bool = False
    ) -> list[Triggered | Refused]:
        return await trigger.trigger(await self._writable(), requests, is_repeat=is_repeat)

    async def create_batch(self, creation: BatchCreation) -> BatchCreated | Stale:
        return await batches.create_batch(await self._open_to([creation.origin]), creation)

    async def trigger_batch(self, chunk: BatchChunk) -> ChunkTaken | Stale | Refused:
        return await batches.trigger_batch(await self._open_to([chunk.origin]), chunk)

    async def abort_batch(self, batch_id: BatchId, reason: str) -> None:
        await batches.abort_batch(await self._at(), batch_id, reason)

    async def retrieve_batches(self, batch_ids: Sequence[BatchId]) -> list[BatchRecord | None]:
        return await batches.retrieve_batches(await self._at(), batch_ids)

    async def retrieve_runs(self, run_ids: Sequence[RunId]) -> list[RunRecord | None]:
        return await runs.retrieve_runs(await self._at(), run_ids)

    async def list_runs(
        self, selection: RunSelection, *, before: RunId | None = None, limit: int = 25
    ) -> list[RunRecord]:
        return await runs.list_runs(await self._at(), selection, before, limit)

    async def read_outcomes(self, run_ids: Sequence[RunId]) -> list[RunOutcome | None]:
        return await runs.read_outcomes(await self._at(), run_ids)

    async def watch_runs(self, run_ids: Sequence[RunId]) -> list[RunOutcome | None]:
        return await runs.watch_runs(await self._at(), run_ids)

    async def cancel_runs(self, run_ids: Sequence[RunId], reason: str) -> list[bool | None]:
        return await runs.cancel_runs(await self._at(), run_ids, reason)

    async def replay_runs(
        self, requests: Sequence[ReplayRequest], *, is_repeat: bool = False
    ) -> list[Triggered | Refused]:
        return await runs.replay_runs(await self._writable(), requests, is_repeat=is_repeat)

    async def reschedule_runs(self, requests: Sequence[Rescheduling]) -> list[RunRecord | Refused | None]:
        return await runs.reschedule_runs(await self._writable(), requests)

    async def list_limits(self, kind: LimitKind, *, offset: int = 0, limit: int = 25) -> tuple[list[LimitRecord], int]:
        return await limits.list_limits(await self._at(), kind, offset, limit)

    async def retrieve_limits(self, refs: Sequence[LimitRef]) -> list[LimitRecord | None]:
        return await limits.retrieve_limits(await self._at(), refs)

    async def change_limits(self, changes: Sequence[LimitChange]) -> list[LimitRecord | Refused]:
        return await limits.change_limits(await self._writable(), changes)

    async def create_bulk_action(self, request: BulkRequest) -> BulkRecord:
        place = await (self._at() if request.kind is BulkKind.CANCEL else self._writable())
        return await bulk.create_bulk_action(place, request)

    async def retrieve_bulk_actions(self, bulk_ids: Sequence[BulkId]) -> list[BulkRecord | None]:
        return await bulk.retrieve_bulk_actions(await self._at(), bulk_ids)

    async def list_bulk_actions(self, *, before: BulkId | None = None, limit: int = 25) -> list[BulkRecord]:
        return await bulk.list_bulk_actions(await self._at(), before, limit)

    async def abort_bulk_action(self, bulk_id: BulkId) -> None:
        await bulk.abort_bulk_action(await self._at(), bulk_id)

    async def create_schedules(self, requests: Sequence[ScheduleRequest]) -> list[ScheduleRecord | Refused]:
        return await schedules.create_schedules(await self._writable(), requests)

    async def retrieve_schedules(self, schedule_ids: Sequence[ScheduleId]) -> list[ScheduleRecord | None]:
        return await schedules.retrieve_schedules(await self._at(), schedule_ids)

    async def list_schedules(self, *, offset: int = 0, limit: int = 25) -> tuple[list[ScheduleRecord], int]:
        return await schedules.list_schedules(await self._at(), offset, limit)

    async def change_schedules(self, changes: Sequence[ScheduleChange]) -> list[ScheduleRecord | Refused]:
        return await schedules.change_schedules(await self._writable(), changes)

    async def retrieve_environment(self) -> Environment:
        return (await self._at()).here.public

    async def list_environments(self) -> list[EnvironmentRecord]:
        return await list_all(self._db)

    async def create_environment(self, name: str, kind: EnvironmentType | None) -> EnvironmentRecord | Refused:
        return await create(self._db, name, kind)

    async def archive_environment(self, name: str) -> EnvironmentRecord | Refused:
        return await archive(self._db, name)

    async def list_envvars(self, names: Sequence[str] | None = None, *, environment: str | None = None) -> list[EnvVar]:
        return await envvars.list_envvars(await self._vault(environment), names)

    async def put_envvars(
        self, values: Sequence[EnvVarValue], mode: PutMode, *, environment: str | None = None
    ) -> list[bool]:
        if environment is not None:
            await find_or_make(self._db, environments.check(environment))
        return await envvars.put_envvars(await self._writable_vault(environment), values, mode)

    async def delete_envvars(self, names: Sequence[str], *, environment: str | None = None) -> list[bool]:
        return await envvars.delete_envvars(await self._writable_vault(environment), names)

    async def rotate_envvars(self) -> int:
        return await envvars.rotate_envvars(self._db, self._keyring)

    async def reset_idempotency_key(self, task_id: str, key: str) -> bool:
        return await runs.reset_idempotency_key(await self._at(), task_id, key)

    async def create_tokens(self, requests: Sequence[TokenRequest]) -> list[TokenCreated | Refused | Stale]:
        return await tokens.create_tokens(await self._open_to([request.origin for request in requests]), requests)

    async def complete_tokens(self, completions: Sequence[TokenCompletion]) -> list[bool | None]:
        return await tokens.complete_tokens(await self._writable(), completions)

    async def retrieve_tokens(self, token_ids: Sequence[WaitpointId]) -> list[TokenRecord | None]:
        return await tokens.retrieve_tokens(await self._at(), token_ids)

    async def list_tokens(self, query: TokenFilter) -> list[TokenRecord]:
        return await tokens.list_tokens(await self._at(), query)

    async def read_logs(self, run_id: RunId, *, after: int = -1, limit: int = 1000) -> list[StoredLog]:
        return await attempts.read_logs(await self._at(), run_id, after, limit)

    async def tag_runs(self, additions: Sequence[RunTagging]) -> list[TagsAdded | None]:
        return await tags.tag_runs(await self._at(), additions)

    async def annotate_runs(self, annotations: Sequence[RunAnnotation]) -> list[RunAnnotated | None]:
        return await metadata.annotate_runs(await self._at(), annotations)

    async def read_journal(self, run_id: RunId, *, after: int = 0, limit: int = 500) -> list[JournalEntry] | None:
        return await journal.read_journal(await self._at(), run_id, after, limit)

    async def list_tasks(self) -> list[RegisteredTask]:
        return await sessions.list_tasks(await self._at())

    async def read_retention(self) -> RetentionRecord:
        place = await self._at()
        return await retention.read_retention(place.db, place.environment)

    async def read_health(self) -> HealthRecord:
        return await health.read_health(await self._at())

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[AsyncIterator[Wake]]:
        place = await self._at()
        async with events.listening(self._listen_url, place.environment) as wakes:
            yield wakes

    # ---- workers

    async def register_worker(self, registration: WorkerRegistration) -> str:
        return await sessions.register_worker(await self._writable(), registration)

    async def open_session(self, opening: SessionOpening) -> None:
        await sessions.open_session(await self._at(), opening)

    async def renew_sessions(self, renewals: Sequence[Renewal]) -> list[Renewed]:
        return await sessions.renew_sessions(await self._at(), renewals)

    async def end_session(self, end: SessionEnd) -> SessionEnded:
        return await sessions.end_session(await self._at(), end)

    async def list_sessions(self) -> list[SessionBeat]:
        return await sessions.list_sessions(await self._at())

    async def read_variables(self, known: str | None) -> Variables | None:
        return await envvars.read_variables(await self._vault(None), known)

    def hear(self, listener: Callable[[Wake], bool]) -> None:
        self._notifier.local = listener

    async def lease(self, request: LeaseRequest) -> list[Lease]:
        return await attempts.lease(await self._at(), request)

    async def start_attempts(self, holders: Sequence[Holder]) -> None:
        await attempts.start_attempts(await self._at(), holders)

    async def complete_attempts(self, outcomes: Sequence[AttemptOutcome]) -> list[Completed | Stale]:
        return await attempts.complete_attempts(await self._at(), outcomes)

    async def end_cancelled(self, holders: Sequence[Holder]) -> None:
        await attempts.end_cancelled(await self._at(), holders)

    async def lease_hooks(self, request: HooksRequest) -> list[HooksLease]:
        return await final_hooks.lease_hooks(await self._at(), request)

    async def end_hooks(self, holders: Sequence[Holder]) -> list[None]:
        return await final_hooks.end_hooks(await self._at(), holders)

    async def hand_back(self, runs: Sequence[HandBack]) -> None:
        await attempts.hand_back(await self._at(), runs)

    async def trigger_children(self, requests: Sequence[ChildRequest]) -> list[ChildTriggered | Stale | Refused]:
        return await trigger.trigger_children(await self._at(), requests)

    async def wait_for(self, requests: Sequence[Wait]) -> list[WaitResult | Pending | Suspended | Refused | Stale]:
        return await waits.wait_for(await self._at(), requests)

    async def suspend(self, requests: Sequence[Suspension]) -> list[Suspended | Pending | Stale]:
        return await waits.suspend(await self._at(), requests)

    async def collect(self, holders: Sequence[Holder]) -> list[Delivery]:
        return await waits.collect(await self._at(), holders)

    async def record_steps(self, records: Sequence[StepRecord]) -> list[Recorded | Stale]:
        return await journal.record_steps(await self._at(), records)

    async def read_journals(self, reads: Sequence[JournalRead], *, limit: int = 500) -> list[list[JournalEntry] | Stale]:
        return await journal.read_journals(await self._at(), reads, limit)

    async def read_batch_results(self, batch_id: BatchId, *, after: int = -1, limit: int = 500) -> list[RunOutcome]:
        return await batches.read_batch_results(await self._at(), batch_id, after, limit)

    async def append_logs(self, lines: Sequence[LogLine]) -> None:
        await attempts.append_logs(await self._at(), lines)

    async def update_metadata(self, updates: Sequence[MetadataUpdate]) -> list[MetadataUpdated | Stale]:
        return await metadata.update_metadata(await self._at(), updates)

    async def add_tags(self, additions: Sequence[TagsAddition]) -> list[TagsAdded | Stale]:
        return await tags.add_tags(await self._at(), additions)

    async def _vault(self, environment: str | None) -> Vault:
        if environment is None:
            here = (await self._at()).here
        elif (found := await find(self._db, environments.check(environment))) is not None:
            here = found
        else:
            raise to_error(not_found(environment))
        return Vault(db=self._db, here=here, keyring=self._keyring)

    async def _writable_vault(self, environment: str | None) -> Vault:
        vault = await self._vault(environment)
        await vault.here.check_writable()
        return vault

    async def _open_to(self, origins: Sequence[Origin | None]) -> Place:
        """Return the place of what only runs that execute may go on doing in an archived environment."""
        return await (self._writable() if None in origins else self._at())

    async def _writable(self) -> Place:
        """Return the place of what nobody may do any more once the environment is archived."""
        place = await self._at()
        await place.here.check_writable()
        return place

    async def _at(self) -> Place:
        if self._place is not None:
            return self._place
        async with self._opening:
            if self._place is None:
                here = await find_or_make(self._db, self._name)
                ticker = Maintenance(self._db, {here.number: self._notifier})
                self._place = Place(
                    db=self._db,
                    here=here,
                    notifier=self._notifier,
                    alarm=Alarm(ticker.tick),
                    lanes=KnownLanes(self._db),
                    tasks=KnownTasks(self._db, here.number),
                )
        return self._place
