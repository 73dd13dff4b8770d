"""The lost reply: the connection is cut after the commit and before the answer, at every statement of every operation.

Each scenario is played once undisturbed, and then once for each statement that was seen, with the connection cut there. The
caller must notice nothing (but for answers that tell that it was done before), and when everything has been driven to its end,
the tables must be the same as without the cut.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from detent.engine import retention
from detent.engine.backend import EngineBackend, connect
from detent.engine.keyring import Keyring
from detent.engine.maintenance import Maintenance
from detent.engine.sql import STATEMENTS
from detent.protocol import ids
from detent.protocol.attempts import Failed, RanOutOfMemory, Succeeded, TimedOut
from detent.protocol.backend import WorkerBackend
from detent.protocol.batches import BatchCreation, ChunkTaken
from detent.protocol.bulk import BulkKind, BulkRequest
from detent.protocol.cron import Cron
from detent.protocol.environments import EnvironmentRecord
from detent.protocol.envvars import EnvVarValue, PutMode
from detent.protocol.fence import Stale
from detent.protocol.final_hooks import FinalEnd, HooksRequest
from detent.protocol.flow import LimitKind, LimitRef, Override, Pause, Reset, Resume
from detent.protocol.idempotency import Idempotency, WaitKey
from detent.protocol.ids import BatchId, RunId, WaitpointId
from detent.protocol.journal import JournalRead, StepRecord
from detent.protocol.leases import HandBack, LeaseRequest
from detent.protocol.logs import LogLine
from detent.protocol.metadata import MetadataKind, MetadataOperation, MetadataUpdate, PlacedOperation, RunAnnotation
from detent.protocol.refusal import Refused
from detent.protocol.retention import RetentionRule
from detent.protocol.runs import ReplayRequest, Rescheduling
from detent.protocol.schedules import (
    Activation,
    Deactivation,
    Deletion,
    ScheduleRecord,
    ScheduleRequest,
    ScheduleUpdate,
)
from detent.protocol.selection import RunSelection
from detent.protocol.sessions import Renewal, SessionEnd, SessionOpening
from detent.protocol.status import RunStatus
from detent.protocol.tags import RunTagging, TagsAddition
from detent.protocol.tokens import TokenCompletion, TokenCreated, TokenFilter, TokenRequest
from detent.protocol.waits import Suspension, TokenWait, Wait
from tests.concurrency.cutting import Proxy, When, proxy_to
from tests.concurrency.meeting import Blockade
from tests.database import Clock, Database
from tests.engine.invariants import broken_rules
from tests.engine.scheduling import EVERY_HOUR, fire
from tests.engine.stage import (
    BOOM,
    PLENTY,
    SOON,
    Stage,
    Worker,
    child,
    chunk,
    holder,
    origin,
    registration,
    request,
    task,
    time_wait,
)
from tests.engine.test_batches import TOO_LARGE
from tests.engine.test_logs import line

NOT_CALLS = {"listen", "hear", "close"}
"""What makes no statement of its own: a stream, which the tests of wake-ups cut, and two local calls."""

OUTSIDE = {"examine_server"}
"""What is asked by `detent doctor` before there is an engine; it only reads, and says itself that no answer came."""

SHARED = Idempotency(key="s" * 64, user_key="s", scope="global")


@dataclass(slots=True)
class Scene:
    """What stands before the call: a worker with two leased runs, and an engine whose connections may be cut."""

    stage: Stage
    engine: EngineBackend
    worker: Worker
    first: Any
    second: Any


Play = Callable[[Scene], Awaitable[Any]]


async def trigger(s: Scene) -> Any:
    return await s.engine.trigger(
        [
            request(run_id=fixed(1)),
            request(run_id=fixed(2), idempotency=SHARED),
            request("other", run_id=fixed(3), delay=SOON),
        ]
    )


async def create_batch(s: Scene) -> Any:
    """One that is waited for, one with a key, and one that finds the key taken."""
    waiting = BatchCreation(batch_id=fixed_batch(10), count=2, origin=origin(s.first, "0"))
    keyed = [BatchCreation(batch_id=fixed_batch(n), key=SHARED) for n in (20, 30)]
    return [await s.engine.create_batch(creation) for creation in (waiting, *keyed)]


async def trigger_batch(s: Scene) -> Any:
    """The second chunk brings an item again, an older run, and one that cannot be triggered; and seals the batch."""
    batch_id, place = fixed_batch(40), origin(s.first, "0")
    await s.engine.trigger_batch(chunk(batch_id, [0, 1], origin=place, idempotency=SHARED))
    good = chunk(batch_id, [1, 2], total=4, origin=place, idempotency=SHARED)
    bad = chunk(batch_id, [3], payload=TOO_LARGE)
    taken = await s.engine.trigger_batch(replace(good, items=(*good.items, *bad.items)))
    assert isinstance(taken, ChunkTaken)
    return taken.items, taken.is_sealed, taken.enqueued, taken.wait


async def abort_batch(s: Scene) -> Any:
    creation = BatchCreation(batch_id=fixed_batch(40), count=2, origin=origin(s.first, "0"))
    await s.stage.engine.create_batch(creation)
    return await s.engine.abort_batch(creation.batch_id, "it raised")


async def abort_late_batches(s: Scene) -> Any:
    creation = BatchCreation(batch_id=fixed_batch(40), count=2, origin=origin(s.first, "0"))
    await s.stage.engine.create_batch(creation)
    await s.stage.query("update testing.clock set shift = shift + interval '1 hour'")
    await carry_on(s)


async def retrieve_batches(s: Scene) -> Any:
    await s.stage.engine.trigger_batch(chunk(fixed_batch(40), [0], total=1, payload=TOO_LARGE))
    found = await s.engine.retrieve_batches([fixed_batch(40), fixed_batch(9)])
    return [batch and (batch.status, len(batch.errors)) for batch in found]


async def create_bulk_action(s: Scene) -> Any:
    await s.stage.trigger()
    action = await s.engine.create_bulk_action(bulk_request(BulkKind.CANCEL))
    return action.total


async def abort_bulk_action(s: Scene) -> Any:
    asked = bulk_request(BulkKind.CANCEL)
    await s.stage.engine.create_bulk_action(asked)
    return await s.engine.abort_bulk_action(asked.bulk_id)


async def retrieve_bulk_actions(s: Scene) -> Any:
    asked = bulk_request(BulkKind.CANCEL)
    await s.stage.engine.create_bulk_action(asked)
    return [action and action.status for action in await s.engine.retrieve_bulk_actions([asked.bulk_id])]


async def list_bulk_actions(s: Scene) -> Any:
    await s.stage.engine.create_bulk_action(bulk_request(BulkKind.CANCEL))
    return [action.status for action in await s.engine.list_bulk_actions()]


async def carry_out_bulk_actions(s: Scene) -> Any:
    for kind in (BulkKind.REPLAY, BulkKind.CANCEL):
        asked = bulk_request(kind)
        await s.stage.engine.create_bulk_action(asked)
        while await s.stage.query("select id from detent.bulk_actions where status = 'PENDING'"):
            # A reply that was lost may have been that of a reservation, which is over in ten seconds.
            await s.stage.query("update detent.bulk_actions set carried_until = null")
            await carry_on(s)
        (action,) = await s.stage.engine.retrieve_bulk_actions([asked.bulk_id])
        assert action is not None
        assert (action.total, action.success) == (2 if kind is BulkKind.REPLAY else 4, action.total)


async def carry_on(s: Scene) -> bool:
    maintenance = s.engine.maintenance
    try:
        return await maintenance.carry_on()
    finally:
        await maintenance.close()


async def retrieve_runs(s: Scene) -> Any:
    await s.worker.sleep(s.first)
    await s.worker.fail(s.second, retry_in=SOON)
    found = await s.engine.retrieve_runs([s.first.run_id, s.second.run_id, fixed(9)])
    return [run and (run.status, len(run.attempts), run.waiting_reason.code) for run in found]


async def list_runs(s: Scene) -> Any:
    return [run.status for run in await s.engine.list_runs(RunSelection())]


async def watch_runs(s: Scene) -> Any:
    await s.worker.succeed(s.first)
    return [found and found.status for found in await s.engine.watch_runs([s.first.run_id, s.second.run_id])]


async def cancel_runs(s: Scene) -> Any:
    await s.worker.call(s.first)
    return await s.engine.cancel_runs([s.first.run_id, s.second.run_id], "stop")


async def replay_runs(s: Scene) -> Any:
    return await s.engine.replay_runs([ReplayRequest(run_id=fixed(5), replay_of=s.first.run_id)])


async def reset_idempotency_key(s: Scene) -> Any:
    await s.stage.trigger(idempotency=SHARED)
    return await s.engine.reset_idempotency_key("work", SHARED.key)


async def reschedule_runs(s: Scene) -> Any:
    run_id = await s.stage.trigger(delay=SOON)
    moved = await s.engine.reschedule_runs([Rescheduling(run_id=run_id, delay=timedelta(hours=2))])
    return [type(answer) for answer in moved]


async def list_limits(s: Scene) -> Any:
    records, total = await s.engine.list_limits(LimitKind.QUEUE)
    return [record.name for record in records], total


async def retrieve_limits(s: Scene) -> Any:
    return await s.engine.retrieve_limits([LimitRef(kind=LimitKind.QUEUE, name="task/work")])


async def change_limits(s: Scene) -> Any:
    everywhere, queue = LimitRef(kind=LimitKind.ENVIRONMENT), LimitRef(kind=LimitKind.QUEUE, name="task/work")
    changes = [
        Override(ref=everywhere, total=9),
        Pause(ref=queue),
        Override(ref=queue, per_key=1),
        Resume(ref=queue),
        Reset(ref=queue),
    ]
    await s.stage.trigger()
    await s.stage.run(await s.stage.trigger())
    return [type(answer) for answer in await s.engine.change_limits(changes)]


def schedule(number: int, **options: Any) -> ScheduleRequest:
    schedule_id = ids.ScheduleId(ids.encode("sched", ids.decode("run", fixed(number))))
    return ScheduleRequest(schedule_id=schedule_id, task_id="work", cron=EVERY_HOUR, **options)


async def create_schedules(s: Scene) -> Any:
    made = await s.engine.create_schedules([schedule(70), schedule(71, deduplication_key="k")])
    return [type(answer) for answer in made]


async def retrieve_schedules(s: Scene) -> Any:
    await s.stage.engine.create_schedules([schedule(70)])
    return [type(record) for record in await s.engine.retrieve_schedules([schedule(70).schedule_id])]


async def list_schedules(s: Scene) -> Any:
    await s.stage.engine.create_schedules([schedule(70), schedule(71)])
    records, count = await s.engine.list_schedules()
    return [record.id for record in records], count


async def change_schedules(s: Scene) -> Any:
    await s.stage.engine.create_schedules([schedule(70), schedule(71)])
    first, second = (schedule(number).schedule_id for number in (70, 71))
    changes = [
        Deactivation(schedule_id=first),
        ScheduleUpdate(schedule_id=first, task_id="work", cron=Cron("5 * * * *"), external_id="e"),
        Activation(schedule_id=first),
        Deletion(schedule_id=second),
    ]
    return [type(answer) for answer in await s.engine.change_schedules(changes)]


async def fire_schedules(s: Scene) -> Any:
    (record,) = await s.stage.engine.create_schedules([schedule(70)])
    assert isinstance(record, ScheduleRecord)
    await s.stage.query("update testing.clock set shift = shift + (%s - detent.now())", record.next_run_at)
    await fire(s.engine)
    return await s.stage.query("select count(*) from detent.inputs where schedule_id is not null")


async def retrieve_environment(s: Scene) -> Any:
    return await s.engine.retrieve_environment()


async def list_environments(s: Scene) -> Any:
    return [(record.name, record.running) for record in await s.engine.list_environments()]


async def create_environment(s: Scene) -> Any:
    """A branch, and with it the preview that it is a branch of."""
    made = await s.engine.create_environment("preview/feat", None)
    return made.name if isinstance(made, EnvironmentRecord) else made


async def archive_environment(s: Scene) -> Any:
    await s.stage.engine.create_environment("qa", None)
    archived = await s.engine.archive_environment("qa")
    return isinstance(archived, EnvironmentRecord) and archived.archived_at is not None


def sealed_with(s: Scene, *keys: bytes) -> EngineBackend:
    """The engine, with keys of variables."""
    s.engine._keyring = Keyring(",".join((key * 32).hex() for key in keys))
    return s.engine


A_VARIABLE = EnvVarValue(name="A", value="1")


async def list_envvars(s: Scene) -> Any:
    await sealed_with(s, b"k").put_envvars([A_VARIABLE], PutMode.SET)
    return [variable.value for variable in await s.engine.list_envvars()]


async def put_envvars(s: Scene) -> Any:
    return [await sealed_with(s, b"k").put_envvars([A_VARIABLE], mode) for mode in (PutMode.KEEP, PutMode.UPDATE)]


async def delete_envvars(s: Scene) -> Any:
    await sealed_with(s, b"k").put_envvars([A_VARIABLE], PutMode.SET)
    return await s.engine.delete_envvars(["A"])


async def rotate_envvars(s: Scene) -> Any:
    await sealed_with(s, b"k").put_envvars([A_VARIABLE], PutMode.SET)
    return await sealed_with(s, b"n", b"k").rotate_envvars()


async def read_variables(s: Scene) -> Any:
    await sealed_with(s, b"k").put_envvars([A_VARIABLE], PutMode.SET)
    variables = await s.engine.read_variables(None)
    return variables and variables.values


async def read_health(s: Scene) -> Any:
    return [worker.name for worker in (await s.engine.read_health()).workers]


async def read_logs(s: Scene) -> Any:
    await s.stage.engine.append_logs([line(s.first, 0)])
    return await s.engine.read_logs(s.first.run_id)


async def list_tasks(s: Scene) -> Any:
    return await s.engine.list_tasks()


async def register_worker(s: Scene) -> Any:
    await s.stage.engine.register_worker(registration("old", version="v1"))
    names = [await s.engine.register_worker(registration(*tasks)) for tasks in (("work",), ("new", "work"))]
    return [*names, await s.engine.register_worker(registration("work", version="v1"))]


async def open_session(s: Scene) -> Any:
    session_id = ids.new_session_id()
    await s.engine.open_session(SessionOpening(session_id=session_id, version=s.worker.version, worker="host:2"))
    return len(await s.stage.engine.list_sessions())


async def renew_sessions(s: Scene) -> Any:
    """The second run came in a lost reply."""
    await s.stage.query("update detent.runs set leased_at = leased_at - interval '1 minute'")
    renewed = await s.engine.renew_sessions([Renewal(session_id=s.worker.session_id, held=(holder(s.first),))])
    return [(each.is_alive, each.lost, each.cancelled) for each in renewed]


async def end_session(s: Scene) -> Any:
    suspects = (s.first.run_id,)
    await s.engine.end_session(SessionEnd(session_id=s.worker.session_id, suspects=suspects, error=BOOM))
    return len(await s.stage.engine.list_sessions())


async def list_sessions(s: Scene) -> Any:
    return len(await s.engine.list_sessions())


async def lease(s: Scene) -> Any:
    """What a lost reply brought is not in the next one; the runner never names it, and it is handed back."""
    await s.worker.call(s.first)
    await s.stage.trigger()
    await s.engine.lease(LeaseRequest(session_id=s.worker.session_id, fence=99, room=PLENTY))


async def start_attempts(s: Scene) -> Any:
    return await s.engine.start_attempts([holder(s.first), holder(s.second)])


async def complete_attempts(s: Scene) -> Any:
    """A success that wakes its parent, failures that are retried, and a run that is over while its code still runs."""
    await s.worker.call(s.first)
    success, late, large = await s.worker.lease_one(), await s.stage.leased(s.worker), await s.stage.leased(s.worker)
    answers = await s.engine.complete_attempts(
        [
            Succeeded(holder=holder(success), output='"done"'),
            Failed(holder=holder(s.second), error=BOOM, retry_in=SOON),
            RanOutOfMemory(holder=holder(large), error=BOOM),
            TimedOut(holder=holder(late), error=BOOM),
        ]
    )
    return [type(answer) for answer in answers]


async def end_cancelled(s: Scene) -> Any:
    await s.stage.engine.cancel_runs([s.first.run_id], "stop")
    return await s.engine.end_cancelled([holder(s.first)])


async def lease_hooks(s: Scene) -> Any:
    """As with other leases: what a lost reply brought is let go."""
    hooked = await s.stage.worker(task("hooked", final_hooks=tuple(FinalEnd)))
    await s.stage.engine.cancel_runs([await s.stage.trigger("hooked")], "stop")
    await s.engine.lease_hooks(HooksRequest(session_id=hooked.session_id, fence=98, most=10))
    await hooked.end()


async def end_hooks(s: Scene) -> Any:
    await s.stage.engine.complete_attempts([Succeeded(holder=holder(s.first), output="1", has_hooks=True)])
    return await s.engine.end_hooks([holder(s.first)])


async def hand_back(s: Scene) -> Any:
    return await s.engine.hand_back([HandBack(holder=holder(s.first)), HandBack(holder=holder(s.second))])


async def trigger_children(s: Scene) -> Any:
    wanted = [
        child(s.first, "0", run_id=fixed(1)),
        child(s.first, "1", run_id=fixed(2), idempotency=SHARED),
        child(s.second, "0", run_id=fixed(3), idempotency=SHARED),
        child(s.second, "1", run_id=fixed(4), wait=False),
    ]
    return await s.engine.trigger_children(wanted)


async def wait_for(s: Scene) -> Any:
    tokens = [TokenRequest(waitpoint_id=fixed_token(n), timeout=SOON) for n in (1, 2)]
    await s.stage.engine.create_tokens(tokens)
    await s.stage.engine.complete_tokens([TokenCompletion(waitpoint_id=fixed_token(1), output="1")])
    waits: list[Wait] = [time_wait(s.first, "0"), time_wait(s.second, "0", timedelta(0))]
    waits += [TokenWait(origin=origin(s.second, f"{n}"), waitpoint_id=fixed_token(n)) for n in (1, 2, 3)]
    return [answer.code if isinstance(answer, Refused) else answer for answer in await s.engine.wait_for(waits)]


async def create_tokens(s: Scene) -> Any:
    key = WaitKey(key="k")
    requests = [
        TokenRequest(waitpoint_id=fixed_token(1)),
        TokenRequest(waitpoint_id=fixed_token(2), key=key),
        TokenRequest(waitpoint_id=fixed_token(3), key=key, timeout=SOON, origin=origin(s.first, "0", wait=False)),
    ]
    answers = await s.engine.create_tokens(requests)
    return [isinstance(a, TokenCreated) and (a.waitpoint_id, a.is_cached) for a in answers]


async def complete_tokens(s: Scene) -> Any:
    await s.stage.engine.create_tokens([TokenRequest(waitpoint_id=fixed_token(1), timeout=SOON)])
    waits = [TokenWait(origin=origin(lease, "0"), waitpoint_id=fixed_token(1)) for lease in (s.first, s.second)]
    await s.stage.engine.wait_for(waits)
    completions = [TokenCompletion(waitpoint_id=fixed_token(1), output=output) for output in ("1", "2")]
    return await s.engine.complete_tokens(completions)


async def retrieve_tokens(s: Scene) -> Any:
    await s.stage.engine.create_tokens([TokenRequest(waitpoint_id=fixed_token(1))])
    found = await s.engine.retrieve_tokens([fixed_token(1), fixed_token(9)])
    return [token and token.status for token in found]


async def list_tokens(s: Scene) -> Any:
    await s.stage.engine.create_tokens([TokenRequest(waitpoint_id=fixed_token(1))])
    return [token.status for token in await s.engine.list_tokens(TokenFilter())]


async def read_journal(s: Scene) -> Any:
    await s.worker.call(s.first, run_id=fixed(1))
    entries = await s.engine.read_journal(s.first.run_id)
    return entries and [entry.operation for entry in entries]


async def read_journals(s: Scene) -> Any:
    await s.worker.call(s.first, run_id=fixed(1))
    pages = await s.engine.read_journals([JournalRead(holder=holder(lease)) for lease in (s.first, s.second)])
    return [len(page) if isinstance(page, list) else page for page in pages]


async def suspend(s: Scene) -> Any:
    await s.stage.engine.trigger_children([child(s.first, "0", run_id=fixed(1), suspends=False)])
    return await s.engine.suspend([Suspension(holder=holder(lease), until=SOON) for lease in (s.first, s.second)])


async def collect(s: Scene) -> Any:
    await s.stage.engine.trigger_children([child(s.first, "0", run_id=fixed(1), suspends=False)])
    await s.worker.succeed(await s.worker.lease_one(), output="1")
    return [len(delivery.results) for delivery in await s.engine.collect([holder(s.first)])]


async def record_steps(s: Scene) -> Any:
    steps = [
        StepRecord(origin=origin(lease, "a#0", wait=False), fingerprint="f", output="1")
        for lease in (s.first, s.second)
    ]
    return await s.engine.record_steps(steps)


async def read_batch_results(s: Scene) -> Any:
    batch_id, _ = await s.worker.batch(s.first, 2)
    await s.worker.succeed(*await s.worker.lease())
    return [result.output for result in await s.engine.read_batch_results(batch_id)]


async def append_logs(s: Scene) -> Any:
    lines = [
        LogLine(holder=holder(s.first), attempt=1, place="0", number=n, at=NOON, level="info", message="m")
        for n in (0, 1)
    ]
    await s.engine.append_logs(lines)
    return len(await s.stage.engine.read_logs(s.first.run_id))


async def update_metadata(s: Scene) -> Any:
    counted = MetadataOperation(kind=MetadataKind.INCREMENT, path=("n",), value=1)
    operations = tuple(PlacedOperation(place="main/", number=number, operation=counted) for number in range(2))
    return await s.engine.update_metadata([MetadataUpdate(holder=holder(s.first), operations=operations)])


async def read_outcomes(s: Scene) -> Any:
    await s.worker.succeed(s.first)
    outcomes = await s.engine.read_outcomes([s.first.run_id, s.second.run_id])
    return [outcome and outcome.status for outcome in outcomes]


async def tag_runs(s: Scene) -> Any:
    return await s.engine.tag_runs([RunTagging(run_id=s.first.run_id, tags=("a", "b"))])


async def annotate_runs(s: Scene) -> Any:
    operation = MetadataOperation(kind=MetadataKind.SET, path=("n",), value=1)
    return await s.engine.annotate_runs([RunAnnotation(run_id=s.first.run_id, operations=(operation,))])


async def add_tags(s: Scene) -> Any:
    return await s.engine.add_tags([TagsAddition(holder=holder(s.first), tags=("a", "b"))])


async def tick(s: Scene) -> Any:
    await s.worker.sleep(s.first, "0", seconds=0.001)
    await s.stage.trigger(delay=timedelta(milliseconds=1))
    await s.stage.query("update testing.clock set shift = shift + interval '1 minute'")
    maintenance = s.engine.maintenance
    await maintenance.tick()
    await maintenance.close()


async def forget_expired(s: Scene) -> Any:
    await s.engine._db.call("forget_expired", {})


async def read_retention(s: Scene) -> Any:
    return (await s.engine.read_retention()).rules


async def let_go(s: Scene) -> Any:
    """On a shelf of its own, which does not outlive the test."""
    rule = RetentionRule(status=RunStatus.FAILED, keep_days=1)
    await s.engine.register_worker(replace(registration("work"), retention=(rule,)))
    try:
        await s.worker.fail(s.first)
        await s.stage.query("update testing.clock set shift = shift + interval '3 days'")
        await retention.let_go(s.engine._db)
        return await s.stage.query("select name from detent.partitions where keep_days = 1 order by 1")
    finally:
        await s.stage.query("drop table if exists detent.history_1, detent.logs_1")


async def triggers_of_a_version(s: Scene) -> Any:
    versions = [s.worker.version, "20200101.1"]
    return await s.engine.trigger([request(run_id=fixed(60 + i), version=name) for i, name in enumerate(versions)])


async def rest_lanes(s: Scene) -> Any:
    await s.engine._db.call("rest_lanes", {})


async def check_slots(s: Scene) -> Any:
    """After somebody has counted wrongly."""
    await s.engine.change_limits([Override(ref=LimitRef(kind=LimitKind.QUEUE, name="task/work"), per_key=5)])
    await s.stage.query("update detent.gates set taken = taken + 1")
    return await Maintenance(s.engine._db).check_slots()


async def first_call_in_an_environment(s: Scene) -> Any:
    engine = connect(s.engine._db.conninfo, environment="prod", size=1)
    tasks = await engine.list_tasks()
    await engine.close()
    return tasks


OPERATIONS: dict[str, Play] = {
    play.__name__: play
    for play in (
        trigger, create_batch, trigger_batch, abort_batch, retrieve_batches, create_bulk_action, abort_bulk_action,
        retrieve_bulk_actions, list_bulk_actions, retrieve_runs, list_runs, read_outcomes, watch_runs, cancel_runs, replay_runs,
        reschedule_runs, list_limits, retrieve_limits, change_limits, reset_idempotency_key, read_logs, list_tasks,
        create_schedules, retrieve_schedules, list_schedules, change_schedules, read_health,
        retrieve_environment, list_environments, create_environment, archive_environment, list_envvars, put_envvars,
        delete_envvars, rotate_envvars, read_variables,
        read_retention,
        register_worker, open_session, renew_sessions, end_session,
        list_sessions, lease, start_attempts, complete_attempts, end_cancelled, lease_hooks, end_hooks, hand_back,
        trigger_children, wait_for, read_journal, read_journals, suspend, collect, record_steps, read_batch_results, append_logs,
        update_metadata, add_tags, tag_runs, annotate_runs,
        create_tokens, complete_tokens, retrieve_tokens, list_tokens,
    )
}  # fmt: skip
OTHERS: dict[str, Play] = {
    play.__name__: play
    for play in (
        tick, forget_expired, let_go, triggers_of_a_version, rest_lanes, check_slots, first_call_in_an_environment,
        abort_late_batches, carry_out_bulk_actions, fire_schedules,
    )
}
EVERYTHING = OPERATIONS | OTHERS

# What a repeat answers that finds its work done. All else must be answered as if nothing had happened.
DONE_BEFORE: Mapping[tuple[str, str], object] = {
    ("cancel_runs", "cancel_runs"): [False, False],
    ("reset_idempotency_key", "reset_idempotency_key"): False,
    ("complete_attempts", "settle_runs"): [Stale, Stale, Stale, Stale],
    ("check_slots", "recount_slots"): 1,
}

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def fixed(n: int) -> RunId:
    """The same id in every play, of this hour: the database looks for finished runs from a day before their id on."""
    return RunId(ids.encode("run", UUID(int=(FIXED.int & ~0xFF) | n)))


def fixed_batch(n: int) -> BatchId:
    return BatchId(ids.encode("batch", ids.decode("run", fixed(n))))


def bulk_request(kind: BulkKind) -> BulkRequest:
    return BulkRequest(bulk_id=ids.new_bulk_id(), kind=kind, runs=RunSelection(task_ids=("work",)))


def fixed_token(n: int) -> WaitpointId:
    return WaitpointId(ids.encode("waitpoint", ids.decode("run", fixed(n))))


FIXED = ids.new_uuid()


@pytest.fixture
async def proxy(dsn: str) -> AsyncIterator[Proxy]:
    async with proxy_to(dsn) as made:
        yield made


async def play(stage: Stage, proxy: Proxy, name: str, clock: Clock) -> tuple[Any, dict[str, Any]]:
    """Play one scenario; return its answer, and what is in the tables when everything has ended."""
    worker = await stage.worker(task("work", oom_machine="large-1x"), task("other"))
    scene = Scene(stage, connect(proxy.dsn, size=1), worker, *[await stage.leased(worker) for _ in range(2)])
    proxy.executed.clear()
    try:
        answer = await EVERYTHING[name](scene)
    finally:
        await scene.engine.close()
    assert await broken_rules(stage.connection) == {}
    await end_everything(stage, worker, clock)
    return answer, await contents(stage)


async def end_everything(stage: Stage, worker: Worker, clock: Clock) -> None:
    """The runner renews with nothing in its hands, and another one does all that is left."""
    await stage.query("update detent.runs set leased_at = leased_at - interval '1 minute'")
    await worker.renew()
    await worker.renew()
    other = await stage.session(worker.version)
    while await stage.count("runs"):
        clock.advance(timedelta(days=1))
        await stage.tick()
        await stage.carry_on()
        await other.succeed(*await other.lease())
    await worker.end()
    await other.end()


async def contents(stage: Stage) -> dict[str, Any]:
    found: dict[str, Any] = {
        table: await stage.count(table)
        for table in ("attempts", "logs", "idempotency_keys", "journal", "waits", "endings", "final_hooks", "batches",
                      "batch_items", "batch_cached", "batch_keys", "bulk_actions", "envvars",
                      "environments", "versions", "version_tasks", "lanes", "limits", "gates", "inputs", "ready")
    }  # fmt: skip
    found["history"] = await stage.query(
        "select task_id, status::text, attempt, waits, count(*) from detent.history group by 1, 2, 3, 4 order by 1, 2, 3, 4"
    )
    found["waitpoints"] = await stage.query("select count(*) from detent.waitpoints where not is_shared")
    return found


@pytest.mark.parametrize("name", EVERYTHING)
async def test_a_lost_reply_doubles_nothing_and_leaves_nothing_stuck(
    stage: Stage, proxy: Proxy, database: Database, clock: Clock, name: str
) -> None:
    wanted = await play(stage, proxy, name, clock)
    statements = sorted(set(proxy.executed))
    assert statements
    for statement in statements:
        await stage.engine.close()
        database.reset()
        again = Stage(connect(database.dsn), stage.connection)
        proxy.cut(statement)
        answer, after = await play(again, proxy, name, clock)
        await again.engine.close()
        assert proxy.target is None, f"{statement} was not executed again"
        assert (statement, after) == (statement, wanted[1])
        assert (statement, answer) == (statement, DONE_BEFORE.get((name, statement), wanted[0]))


def test_every_operation_of_a_backend_is_cut() -> None:
    public = {name for name, _ in inspect.getmembers(WorkerBackend, inspect.isfunction) if not name.startswith("_")}
    assert set(OPERATIONS) == public - NOT_CALLS


async def test_every_statement_is_cut(stage: Stage, proxy: Proxy, database: Database, clock: Clock) -> None:
    executed: set[str] = set()
    for name in EVERYTHING:
        again = Stage(connect(database.dsn), stage.connection)
        await play(again, proxy, name, clock)
        await again.engine.close()
        executed |= set(proxy.executed)
        database.reset()
    assert executed == set(STATEMENTS) - OUTSIDE


# ---- the call that is still being executed when it is repeated

SLOW: dict[str, tuple[Play, str]] = {
    "trigger_children": (trigger_children, "select from detent.runs for update"),
    "wait_for": (wait_for, "select from detent.runs for update"),
    "suspend": (suspend, "select from detent.runs for update"),
    "record_steps": (record_steps, "select from detent.runs for update"),
    "create_tokens": (create_tokens, "select from detent.runs for update"),
    "complete_tokens": (complete_tokens, "select from detent.waitpoints for update"),
    "create_batch": (create_batch, "select from detent.runs for update"),
    "trigger_batch": (trigger_batch, "select from detent.runs for update"),
    "abort_batch": (abort_batch, "select from detent.batches for update"),
    "cancel_runs": (cancel_runs, "select from detent.runs for update"),
    "settle_runs": (complete_attempts, "select from detent.runs for update"),
    "hand_back": (hand_back, "select from detent.runs for update"),
    "end_session": (end_session, "select from detent.sessions for update"),
    "renew_session": (renew_sessions, "select from detent.sessions for update"),
    "lease_runs": (lease, "select from detent.sessions for update"),
    "trigger_runs": (trigger, "lock table detent.runs in share mode"),
}


@pytest.mark.parametrize("statement", SLOW)
async def test_a_call_that_is_repeated_while_it_is_still_under_way(
    stage: Stage, proxy: Proxy, blockade: Blockade, clock: Clock, statement: str
) -> None:
    """The client lost its patience or its network; the server executes the first call all the same, beside the second."""
    name = SLOW[statement][0].__name__
    worker = await stage.worker(task("work", oom_machine="large-1x"), task("other"))
    scene = Scene(stage, connect(proxy.dsn, size=1), worker, *[await stage.leased(worker) for _ in range(2)])
    proxy.cut(statement, When.AT_ONCE, lambda: blockade.lock(SLOW[statement][1]))
    calling = asyncio.create_task(EVERYTHING[name](scene))
    await blockade.until_blocked(2)
    await blockade.let_go()
    await calling
    await scene.engine.close()
    assert proxy.target is None
    assert await broken_rules(stage.connection) == {}
    await end_everything(stage, worker, clock)
    assert await stage.count("inputs") == 0
