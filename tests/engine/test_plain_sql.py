"""`detent.trigger`, from plain SQL."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import AsyncConnection

from detent.protocol import ids
from detent.protocol.idempotency import Idempotency
from detent.protocol.ids import RunId
from detent.protocol.status import RunStatus
from tests.engine.stage import Stage, Worker, queue, request, task

NAMES = ["work", 'a "b"\\', "naïve/名前\U0001f600", "line\nbreak\x1f\x7f"]


async def trigger(stage: Stage, task_id: str = "work", payload: str | None = None, **options: object) -> RunId:
    ((run_id,),) = await stage.query(
        "select detent.trigger(%s, %s::text::json, %s::text::jsonb)", task_id, payload, json.dumps(options)
    )
    return RunId(run_id)


async def test_it_makes_a_run_like_any_other(stage: Stage, worker: Worker) -> None:
    run_id = await trigger(
        stage, payload='{"a": 1.10,  "b": "x"}', tags=["a", "b"], metadata={"n": 1}, priority=5, max_attempts=7,
        max_duration=60, queue="emails", concurrency_key="user 7", concurrency=["openai"], ttl=30,
    )  # fmt: skip
    run = await stage.run(run_id)
    assert (run.payload, run.tags, run.metadata) == ('{"a": 1.10,  "b": "x"}', ("a", "b"), '{"n": 1}')
    assert (run.priority, run.max_attempts, run.max_duration, run.ttl) == (5.0, 7, 60.0, 30.0)
    assert (run.queue, run.concurrency_key, run.limits) == ("emails", "user 7", ("openai",))
    assert run.expires_at is not None


async def test_a_task_has_the_queue_and_ttl_that_it_registered(stage: Stage) -> None:
    worker = await stage.worker(task("send", queue="emails", ttl=60.0), limits=[queue("emails", 1)])
    run_id = await trigger(stage, "send")
    run = await stage.run(run_id)
    assert (run.queue, run.payload, run.ttl) == ("emails", None, None)
    assert run.expires_at is not None
    await trigger(stage, "send")
    assert (await worker.lease_one()).run_id == run_id


async def test_runs_stand_in_the_lanes_of_those_that_are_triggered_otherwise(stage: Stage, worker: Worker) -> None:
    for name in NAMES:
        await stage.trigger(name, queue=name, concurrency_key=name, limits=(name, "b"))
        await trigger(stage, name, queue=name, concurrency_key=name, concurrency=[name, "b"])
        await stage.trigger(name, version=worker.version if name == "work" else None)
        await trigger(stage, name, **({"version": worker.version} if name == "work" else {}))
    assert await stage.count("lanes") == 2 * len(NAMES)


async def test_ids_are_written_as_everywhere(stage: Stage) -> None:
    for value in [ids.new_uuid() for _ in range(20)]:
        ((text,),) = await stage.query("select detent.public_id('run', %s)", value)
        assert text == ids.encode("run", value)
    made = [await trigger(stage) for _ in range(5)]
    assert made == sorted(made)
    age = datetime.now(UTC) - ids.created_at(ids.decode("run", made[0]))
    assert abs(age) < timedelta(minutes=1)


async def test_what_was_rolled_back_was_never_there(stage: Stage, dsn: str) -> None:
    async with await AsyncConnection.connect(dsn) as connection:
        await connection.execute("select detent.trigger('work', '{}')")
        await connection.rollback()
    assert (await stage.count("runs"), await stage.count("lanes")) == (0, 0)


async def test_an_open_transaction_keeps_no_other_trigger_waiting(stage: Stage, worker: Worker, dsn: str) -> None:
    await stage.trigger()
    async with await AsyncConnection.connect(dsn) as connection:
        await connection.execute("select detent.trigger('work', '{}')")
        await stage.trigger()
        assert len(await worker.lease()) == 2
        await connection.commit()
    assert len(await worker.lease()) == 1


async def test_workers_hear_of_it_at_the_commit(stage: Stage, dsn: str) -> None:
    async with stage.engine.listen() as wakes, await AsyncConnection.connect(dsn) as connection:
        await connection.execute("select detent.trigger('work', '{}')")
        await connection.commit()
        while not (wake := await anext(wakes)).ready:
            pass
    assert wake.ready == 1


async def test_a_delayed_run_starts_later(stage: Stage) -> None:
    moment = datetime(2099, 1, 1, tzinfo=UTC)
    assert await stage.status(await trigger(stage, delay=60)) is RunStatus.DELAYED
    run = await stage.run(await trigger(stage, starts_at=moment.isoformat()))
    assert (run.status, run.due_at) == (RunStatus.DELAYED, moment)


async def test_an_idempotency_key_is_the_same_as_from_python(stage: Stage) -> None:
    first = await trigger(stage, idempotency_key="order 7")
    assert await trigger(stage, idempotency_key="order 7") == first
    ((key,),) = await stage.query("select key from detent.idempotency_keys")
    again = Idempotency(key=key, user_key="order 7", scope="global", ttl=timedelta(days=1))
    ((answer),) = await stage.engine.trigger([request(idempotency=again)])
    assert getattr(answer, "run_id", None) == first


async def test_an_environment_is_made_when_it_is_first_named(stage: Stage) -> None:
    await trigger(stage, environment="staging")
    assert await stage.query("select slug from detent.environments where slug <> 'dev'") == [("staging",)]


@pytest.mark.parametrize("options", [{"delayed": 5}, {"version": "no such"}])
async def test_what_cannot_be_meant_is_refused(stage: Stage, options: dict[str, object]) -> None:
    with pytest.raises(psycopg.DatabaseError, match=r"no option delayed|no worker has registered version"):
        await trigger(stage, "work", None, **options)
