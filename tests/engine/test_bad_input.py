"""What callers may get wrong: a clear answer, and nothing half-written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from detent.engine.backend import EngineBackend, connect
from detent.errors import ApiConnectionError, BadRequestError
from detent.protocol import ids
from detent.protocol.attempts import Succeeded
from detent.protocol.batches import BatchCreation
from detent.protocol.bulk import BulkKind, BulkRequest
from detent.protocol.fence import Holder, Stale
from detent.protocol.idempotency import Idempotency
from detent.protocol.journal import JournalRead, StepRecord
from detent.protocol.leases import HandBack, LeaseRequest
from detent.protocol.operations import Origin
from detent.protocol.refusal import Refused
from detent.protocol.run_error import RunError
from detent.protocol.runs import ReplayRequest
from detent.protocol.selection import RunSelection
from detent.protocol.sessions import Renewal, SessionEnd, SessionOpening
from detent.protocol.triggering import Triggered
from detent.protocol.waits import Suspended, Suspension
from tests.engine.stage import Stage, Worker, child, chunk, journal_of, origin, request, task, time_wait

DEEP = "[" * 10_000 + "]" * 10_000
NOTHING = ("runs", "inputs", "ready", "history", "journal", "batches", "waits", "waitpoints", "idempotency_keys")


async def written(stage: Stage) -> dict[str, int]:
    return {table: count for table in NOTHING if (count := await stage.count(table))}


# ---- values that are unusual, and kept


@pytest.mark.parametrize(
    "text",
    ['"a\\u0000b"', '{"\\u0000": "\\ud83d\\ude00"}', '"\\ud800"', '"😀"', DEEP, "1e400", '{"a": 1, "a": 2}', " 1 "],
)
async def test_payload_and_output_come_back_as_they_were_given(stage: Stage, worker: Worker, text: str) -> None:
    lease = await stage.leased(worker, payload=text)
    assert lease.payload == text
    await worker.succeed(lease, output=text)
    run = await stage.run(lease.run_id)
    assert (run.payload, run.output) == (text, text)


async def test_nine_megabytes_pass_through_a_child_and_back(stage: Stage, worker: Worker) -> None:
    big = '"' + "x" * (9 * 1024 * 1024) + '"'
    parent = await stage.leased(worker, payload=big)
    assert parent.payload == big
    await worker.call(parent, "0", payload=big)
    await worker.succeed(await worker.lease_one(), output=big)
    (result,) = (await worker.lease_one()).results
    assert result.child.output == big


async def test_an_error_with_a_nul_in_it_is_kept(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    error = RunError(name="Bad\x00Name", message="a\x00b", traceback="line\x00")
    await worker.fail(lease, error=error)
    assert (await stage.run(lease.run_id)).error == error


# ---- payloads that a schema cannot judge


@pytest.mark.parametrize("text", [DEEP, "not json", "", "{'a': 1}", '{"a": 1'])
async def test_text_that_is_no_json_is_refused_by_a_schema_beside_good_requests(stage: Stage, text: str) -> None:
    await stage.worker(task("work", payload_schema='{"type": "object"}'))
    refused, made = await stage.engine.trigger([request(payload=text), request(payload="{}")])
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (422, "invalid_payload")
    assert len(str(refused.details)) < 1000
    assert isinstance(made, Triggered)


# ---- values that the database cannot take

BAD_OPTIONS: list[dict[str, Any]] = [
    {"concurrency_key": "a\x00b"},
    {"queue": "a\x00b"},
    {"tags": ("a\x00b",)},
    {"tags": ("\ud800",)},
    {"payload": '"a\x00b"'},
    {"metadata": "\ud800"},
    {"task_id": "a\x00"},
    {"max_attempts": 40_000},
    {"priority": float("nan")},
    {"priority": 1e300},
    {"max_duration": float("inf")},
    {"delay": timedelta.max},
    {"idempotency": Idempotency(key="a\x00", user_key="k", scope="run")},
    {"idempotency": Idempotency(key="k", user_key="k", scope="run", ttl=timedelta.max)},
]


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=lambda options: next(iter(options)))
async def test_a_value_that_cannot_be_stored_is_a_bad_request_and_stores_nothing(
    stage: Stage, options: dict[str, Any]
) -> None:
    with pytest.raises(BadRequestError) as caught:
        await stage.engine.trigger([request(), request(**options), request()])
    assert caught.value.code == "invalid_value"
    assert await written(stage) == {}


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=lambda options: next(iter(options)))
async def test_a_bad_child_leaves_no_trace_in_its_parents_journal(
    stage: Stage, worker: Worker, options: dict[str, Any]
) -> None:
    parent = await stage.leased(worker)
    with pytest.raises(BadRequestError):
        await stage.engine.trigger_children([child(parent, "0"), child(parent, "1", **options)])
    assert await written(stage) == {"runs": 1, "inputs": 1}
    batch_id = ids.new_batch_id()
    good, bad = chunk(batch_id, [0], total=2), chunk(batch_id, [1], **options)
    with pytest.raises(BadRequestError):
        await stage.engine.trigger_batch(replace(good, items=(*good.items, *bad.items)))
    assert await written(stage) == {"runs": 1, "inputs": 1}


async def test_a_wait_beyond_the_end_of_time_is_a_bad_request(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    with pytest.raises(BadRequestError):
        await stage.engine.wait_for([time_wait(lease, "0", timedelta.max)])
    assert await written(stage) == {"runs": 1, "inputs": 1}


@pytest.mark.parametrize("until", [timedelta.max, timedelta.min])
async def test_a_timer_beyond_the_end_of_time_is_a_bad_request_or_over(
    stage: Stage, worker: Worker, until: timedelta
) -> None:
    lease = await stage.leased(worker)
    await stage.engine.trigger_children([child(lease, "0", suspends=False)])
    suspension = Suspension(holder=Holder(run_id=lease.run_id, fence=lease.fence), until=until)
    if until > timedelta():
        with pytest.raises(BadRequestError):
            await stage.engine.suspend([suspension])
        assert (await stage.run(lease.run_id)).waits == 0
    else:
        assert await stage.engine.suspend([suspension]) == [Suspended()]
        await stage.tick()
        assert lease.run_id in {again.run_id for again in await worker.lease()}


@pytest.mark.parametrize(
    "bad", [{"output": "\ud800"}, {"output": "a\x00"}, {"error": "\x00"}, {"fingerprint": "\x00"}], ids=str
)
async def test_a_step_that_cannot_be_stored_is_a_bad_request_and_records_none_of_its_call(
    stage: Stage, worker: Worker, bad: dict[str, Any]
) -> None:
    lease = await stage.leased(worker)
    good = StepRecord(origin=origin(lease, "0", wait=False), fingerprint="f", output='"\\u0000"')
    with pytest.raises(BadRequestError):
        await stage.engine.record_steps([good, replace(good, origin=origin(lease, "1"), **bad)])
    assert await stage.count("journal") == 0
    await stage.engine.record_steps([good])
    (entry,) = await journal_of(stage.engine, good.origin.holder)
    assert entry.output == good.output


async def test_an_output_that_cannot_be_stored_settles_none_of_its_call(stage: Stage, worker: Worker) -> None:
    """The callers of a shared call are split, and each gets its own answer (`Coalescer`)."""
    good, bad = [await stage.leased(worker) for _ in range(2)]
    held = [Holder(run_id=lease.run_id, fence=lease.fence) for lease in (good, bad)]
    with pytest.raises(BadRequestError):
        await worker.settle(Succeeded(holder=held[0], output="1"), Succeeded(holder=held[1], output="\ud800"))
    assert await stage.count("history") == 0
    await worker.succeed(good, bad)


# ---- ids

MALFORMED = [
    "run_",
    "run_01h455vb4pex5vsknk084sn02",
    "nonsense",
    "batch_01h455vb4pex5vsknk084sn02q",
    "run_" + "z" * 26,
    "",
]
BAD = Holder(run_id=ids.RunId("run_bad"), fence=1)

CALLS: dict[str, Callable[[EngineBackend], Awaitable[object]]] = {
    "trigger": lambda engine: engine.trigger([request(), request(run_id="run_bad")]),
    "trigger replay": lambda engine: engine.trigger([request(replay_of="run_bad")]),
    "trigger_batch": lambda engine: engine.trigger_batch(chunk(ids.BatchId("batch_bad"), [], total=0)),
    "create_batch": lambda engine: engine.create_batch(BatchCreation(batch_id=ids.BatchId("batch_bad"))),
    "retrieve_batches": lambda engine: engine.retrieve_batches([ids.BatchId("batch_bad")]),
    "create_bulk_action": lambda engine: engine.create_bulk_action(
        BulkRequest(bulk_id=ids.new_bulk_id(), kind=BulkKind.CANCEL, runs=(ids.RunId("run_bad"),))
    ),
    "abort_bulk_action": lambda engine: engine.abort_bulk_action(ids.BulkId("bulk_bad")),
    "retrieve_bulk_actions": lambda engine: engine.retrieve_bulk_actions([ids.BulkId("bulk_bad")]),
    "list_bulk_actions": lambda engine: engine.list_bulk_actions(before=ids.BulkId("bulk_bad")),
    "abort_batch": lambda engine: engine.abort_batch(ids.BatchId("batch_bad"), "reason"),
    "replay_runs": lambda engine: engine.replay_runs(
        [ReplayRequest(run_id=ids.RunId("run_bad"), replay_of=ids.RunId("run_bad"))]
    ),
    "read_logs": lambda engine: engine.read_logs(ids.RunId("run_bad")),
    "list_runs": lambda engine: engine.list_runs(RunSelection(), before=ids.RunId("run_bad")),
    "open_session": lambda engine: engine.open_session(
        SessionOpening(session_id=ids.SessionId("session_bad"), version="v", worker="w")
    ),
    "renew_sessions": lambda engine: engine.renew_sessions([Renewal(session_id=ids.SessionId("bad"), held=())]),
    "end_session": lambda engine: engine.end_session(SessionEnd(session_id=ids.SessionId("bad"))),
    "lease": lambda engine: engine.lease(LeaseRequest(session_id=ids.SessionId("bad"), fence=1, room={})),
    "start_attempts": lambda engine: engine.start_attempts([BAD]),
    "complete_attempts": lambda engine: engine.complete_attempts([Succeeded(holder=BAD, output=None)]),
    "end_cancelled": lambda engine: engine.end_cancelled([BAD]),
    "hand_back": lambda engine: engine.hand_back([HandBack(holder=BAD)]),
    "read_journals": lambda engine: engine.read_journals([JournalRead(holder=BAD)]),
    "read_journal": lambda engine: engine.read_journal(ids.RunId("run_bad")),
    "suspend": lambda engine: engine.suspend([Suspension(holder=BAD)]),
    "collect": lambda engine: engine.collect([BAD]),
    "record_steps": lambda engine: engine.record_steps(
        [StepRecord(origin=Origin(holder=BAD, operation="a#0"), fingerprint="f")]
    ),
    "read_batch_results": lambda engine: engine.read_batch_results(ids.BatchId("batch_bad")),
}


@pytest.mark.parametrize("text", MALFORMED)
async def test_a_malformed_run_id_is_an_error_that_shows_a_good_one(stage: Stage, text: str) -> None:
    for call in (stage.engine.retrieve_runs, stage.engine.watch_runs):
        with pytest.raises(ValueError, match=r'is no run id; one looks like "run_'):
            await call([ids.RunId(text)])
    with pytest.raises(ValueError, match="is no run id"):
        await stage.engine.cancel_runs([await stage.trigger(), ids.RunId(text)], "x")
    assert await stage.count("history") == 0


@pytest.mark.parametrize("name", CALLS)
async def test_every_operation_refuses_a_malformed_id_and_writes_nothing(stage: Stage, name: str) -> None:
    with pytest.raises(ValueError, match="one looks like"):
        await CALLS[name](stage.engine)
    assert await written(stage) == {}


async def test_unknown_runs_are_stale_to_a_worker_and_absent_to_a_reader(stage: Stage, worker: Worker) -> None:
    unknown = Holder(run_id=ids.new_run_id(), fence=7)
    assert await worker.settle(Succeeded(holder=unknown, output=None)) == [Stale(run_id=unknown.run_id)]
    assert await journal_of(stage.engine, unknown) == Stale(run_id=unknown.run_id)
    assert await stage.engine.suspend([Suspension(holder=unknown)]) == [Stale(run_id=unknown.run_id)]
    assert await stage.engine.collect([unknown]) == []
    assert await stage.engine.read_logs(unknown.run_id) == []
    assert await stage.engine.read_batch_results(ids.new_batch_id()) == []
    assert await stage.engine.list_runs(RunSelection(parent_run_id=unknown.run_id)) == []
    await stage.engine.start_attempts([unknown])
    await stage.engine.hand_back([HandBack(holder=unknown)])
    await stage.engine.end_cancelled([unknown])


# ---- a database that is not there


async def test_a_database_out_of_reach_is_said_so_when_patience_ends() -> None:
    engine = connect("host=/nonexistent user=nobody dbname=nothing", patience=0.05)
    with pytest.raises(ApiConnectionError, match="out of reach") as caught:
        await engine.list_tasks()
    assert caught.value.code == "database_unreachable"
    await engine.close()


async def test_a_closed_backend_says_that_it_is_closed(dsn: str) -> None:
    engine = connect(dsn)
    await engine.list_tasks()
    await engine.close()
    with pytest.raises(ApiConnectionError, match="is closed"):
        await engine.trigger([request()])
