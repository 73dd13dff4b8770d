"""What time brings: due rows, partitions, what has expired."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from detent.engine import maintenance
from detent.engine.backend import connect
from detent.engine.maintenance import LONGEST_SLEEP, SHORTEST_SLEEP
from detent.engine.sql import STATEMENTS
from detent.protocol import ids
from detent.protocol.batches import BatchCreation
from detent.protocol.bulk import BulkKind, BulkRequest
from detent.protocol.leases import Lease
from detent.protocol.selection import RunSelection
from detent.protocol.status import RunStatus
from tests.database import Clock, open_database
from tests.engine.stage import Stage, Worker, chunk, holder, journal_of, origin, request
from tests.engine.test_idempotency import keyed
from tests.engine.test_waits import KEY
from tests.pooler import direct


async def test_a_tick_with_nothing_due_sleeps_long(stage: Stage) -> None:
    assert await stage.tick() == LONGEST_SLEEP


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=400)])
async def test_a_tick_sleeps_until_the_next_due_row(
    stage: Stage, worker: Worker, clock: Clock, ahead: timedelta
) -> None:
    """By the clock of the database, whatever the clock of this host says."""
    clock.advance(ahead)
    lease = await stage.leased(worker)
    await worker.sleep(lease, "0", hours=1)
    assert await stage.tick() == LONGEST_SLEEP
    await stage.trigger(delay=timedelta(milliseconds=900))
    assert SHORTEST_SLEEP <= await stage.tick() < 0.9
    await worker.sleep(lease, "1", milliseconds=500)
    assert SHORTEST_SLEEP <= await stage.tick() < 0.5


async def test_more_due_rows_than_one_tick_takes_are_taken_by_the_next(
    stage: Stage, worker: Worker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_MOST_DUE", 4)
    await stage.engine.trigger([request(delay=timedelta(minutes=1)) for _ in range(10)])
    clock.advance(timedelta(minutes=2))
    assert [await stage.tick() for _ in range(3)] == [SHORTEST_SLEEP, SHORTEST_SLEEP, LONGEST_SLEEP]
    assert len(await worker.lease()) == 10


async def test_many_may_tick_at_once(stage: Stage, worker: Worker, clock: Clock, dsn: str) -> None:
    await stage.engine.trigger([request(delay=timedelta(minutes=1)) for _ in range(200)])
    leases = await _leases(stage, worker, 50)
    for lease in leases:
        await worker.sleep(lease, "0", minutes=1)
    clock.advance(timedelta(minutes=2))
    engines = [connect(dsn) for _ in range(3)]
    await asyncio.gather(*(engine.maintenance.tick() for engine in engines for _ in range(2)))
    assert await stage.query("select status::text, count(*) from detent.runs group by 1") == [("QUEUED", 250)]
    for engine in engines:
        await engine.close()


async def _leases(stage: Stage, worker: Worker, count: int) -> list[Lease]:
    await stage.engine.trigger([request() for _ in range(count)])
    return await worker.lease()


async def test_the_ticker_runs_until_it_is_cancelled(stage: Stage, worker: Worker, fresh_dsn: str) -> None:
    engine = connect(fresh_dsn, listen_url=direct(fresh_dsn))
    async with engine.listen() as wakes:
        ticker = asyncio.create_task(engine.maintenance.run())
        await engine.trigger([request(delay=timedelta(milliseconds=30))])
        async with asyncio.timeout(5):
            while not (await anext(wakes)).ready:
                pass
    ticker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ticker
    await engine.close()


async def test_a_failing_tick_does_not_stop_the_ticker(fresh_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = asyncio.Event()
    monkeypatch.setattr(maintenance, "LONGEST_SLEEP", 0.01)
    monkeypatch.setattr(maintenance.log, "warning", lambda *_: failed.set())
    engine = connect(fresh_dsn, listen_url=direct(fresh_dsn))
    with open_database(fresh_dsn) as database:
        database.connection.execute("alter function detent.tick rename to tock")
        async with engine.listen() as wakes:
            ticker = asyncio.create_task(engine.maintenance.run())
            async with asyncio.timeout(5):
                await failed.wait()
                database.connection.execute("alter function detent.tock rename to tick")
                await engine.trigger([request(delay=timedelta(milliseconds=10))])
                while not (await anext(wakes)).ready:
                    pass
    ticker.cancel()
    await engine.close()


async def test_partitions_are_made_ahead_once_and_take_the_rows_of_their_day(fresh_dsn: str) -> None:
    engine = connect(fresh_dsn)
    with open_database(fresh_dsn) as database:

        def partitions() -> list[str]:
            rows = database.connection.execute(
                "select relname from pg_class where relispartition and relkind = 'r' order by 1"
            )
            return [name for (name,) in rows]

        await asyncio.gather(*(engine.maintenance.keep_house() for _ in range(3)))
        made = partitions()
        assert len(made) == 2 * (3 + 3)
        await engine.maintenance.keep_house()
        assert partitions() == made
        stage = Stage(engine, None)  # type: ignore[arg-type]  # nothing is queried
        worker = await stage.worker()
        await worker.succeed(await stage.leased(worker))
        database.connection.execute("update testing.clock set shift = '30 days'")
        late = await stage.leased(worker)
        await worker.succeed(late)
        counts = database.connection.execute(
            "select tableoid::regclass::text, count(*) from detent.history group by 1 order by 1"
        ).fetchall()
        assert [count for _, count in counts] == [1, 1]
        assert counts[1] == ("detent.history_30_rest", 1)
        await engine.maintenance.keep_house()
        assert await stage.status(late.run_id) is RunStatus.COMPLETED
    await engine.close()


async def test_housekeeping_forgets_what_nobody_can_ask_for(stage: Stage, worker: Worker, clock: Clock) -> None:
    await stage.engine.trigger([keyed(ttl=timedelta(hours=1)), keyed(key="m" * 64, ttl=timedelta(days=900))])
    await stage.engine.trigger_batch(chunk(ids.new_batch_id(), [0], total=1))
    await worker.succeed(*await worker.lease())
    ended = await stage.session(worker.version)
    await ended.end()
    await stage.query("update detent.batches set created_at = created_at - interval '61 days'")
    await stage.query("update detent.sessions set ended_at = ended_at - interval '2 days'")
    clock.advance(timedelta(days=3))
    await _keep_house(stage)
    assert [await stage.count(table) for table in ("idempotency_keys", "sessions", "batches")] == [1, 1, 0]


async def test_housekeeping_forgets_batches_and_bulk_actions_of_long_ago(
    stage: Stage, worker: Worker, clock: Clock
) -> None:
    batch = await stage.engine.create_batch(BatchCreation(batch_id=ids.new_batch_id(), key=KEY))
    await stage.engine.trigger_batch(chunk(batch.batch_id, [0, 1], total=2, idempotency=KEY))
    await worker.succeed(await worker.lease_one())
    asked = BulkRequest(bulk_id=ids.new_bulk_id(), kind=BulkKind.CANCEL, runs=RunSelection(task_ids=("none",)))
    await stage.engine.create_bulk_action(asked)
    await stage.carry_on()
    tables = ("batches", "batch_cached", "batch_keys", "bulk_actions")
    assert [await stage.count(table) for table in tables] == [1, 1, 1, 1]
    clock.advance(timedelta(days=61))
    await _keep_house(stage)
    assert [await stage.count(table) for table in tables] == [0, 0, 0, 0]


async def test_a_shared_waitpoint_is_kept_while_a_journal_names_it(stage: Stage, worker: Worker, clock: Clock) -> None:
    one, two = await _leases(stage, worker, 2)
    for parent in (one, two):
        await worker.call(parent, "0", idempotency=KEY)
    await worker.succeed(await worker.lease_one(), output="3")
    one, two = await worker.lease()
    await worker.succeed(one)
    clock.advance(timedelta(days=100))
    await _keep_house(stage)
    assert (await journal_of(stage.engine, holder(two)))[0].result.child.output == "3"
    await worker.succeed(two)
    await _keep_house(stage)
    assert await stage.count("waitpoints") == 0


async def test_the_items_of_a_batch_are_remembered_while_its_parent_lives(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    batch_id = ids.new_batch_id()
    whole = chunk(batch_id, [0], total=1, origin=origin(parent, "0", wait=False))
    await stage.engine.trigger_batch(whole)
    await worker.succeed(await worker.lease_one())
    await stage.query("update detent.batches set created_at = created_at - interval '61 days'")
    await _keep_house(stage)
    await stage.engine.trigger_batch(whole)
    assert await worker.lease() == []


async def _keep_house(stage: Stage) -> None:
    """All but the partitions, which would outlive the test."""
    await stage.query(STATEMENTS["forget_expired"].text.decode())
