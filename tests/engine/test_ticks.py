"""Schedules that are due: each tick fires once, and what becomes of those that were missed."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import AsyncConnection

from detent.engine.backend import EngineBackend, connect
from detent.engine.known_tasks import KnownTasks
from detent.engine.ticks import Timetable, phase
from detent.protocol import ids
from detent.protocol.cron import Cron
from detent.protocol.refusal import Refused
from tests.database import Clock
from tests.engine.scheduling import (
    HOUR,
    MINUTE,
    all_schedules,
    create,
    fire,
    jump,
    next_of,
    retrieve,
    runs,
    scheduled,
)
from tests.engine.stage import Stage, task
from tests.pooler import direct


@pytest.fixture
async def engine(dsn: str) -> AsyncIterator[EngineBackend]:
    """A deployed environment: what is special about development has tests of its own."""
    backend = connect(dsn, environment="production", patience=5.0, listen_url=direct(dsn))
    yield backend
    await backend.close()


async def test_schedule_fires_at_its_tick_and_moves_on(stage: Stage, clock: Clock) -> None:
    await stage.worker(scheduled(cron=None))
    made = await create(stage, external_id="user_7")
    tick = next_of(made)
    await jump(stage, clock, tick - MINUTE)
    await fire(stage.engine)
    assert await runs(stage) == []

    await jump(stage, clock, tick)
    await fire(stage.engine)

    (run,) = await runs(stage)
    assert (run.task_id, run.schedule_id) == ("work", made.id)
    assert json.loads(run.payload or "") == {
        "timestamp": tick.isoformat(),
        "timezone": "UTC",
        "schedule_id": made.id,
        "type": "IMPERATIVE",
        "last_timestamp": None,
        "external_id": "user_7",
        "upcoming": [(tick + HOUR * i).isoformat() for i in range(1, 11)],
    }
    after = await retrieve(stage, made.id)
    assert (after.last_run_at, after.next_run_at) == (tick, tick + HOUR)


async def test_next_run_is_told_of_the_one_before(stage: Stage, clock: Clock) -> None:
    await stage.worker(scheduled())
    (declared,) = await all_schedules(stage)
    tick = next_of(declared)
    for moment in (tick, tick + HOUR):
        await jump(stage, clock, moment)
        await fire(stage.engine)

    payloads = [json.loads(run.payload or "") for run in await runs(stage)]
    assert [payload["last_timestamp"] for payload in payloads] == [None, tick.isoformat()]
    assert {payload["type"] for payload in payloads} == {"DECLARATIVE"}


async def test_scheduled_run_stands_in_its_queue_where_its_time_says(stage: Stage, clock: Clock) -> None:
    worker = await stage.worker(scheduled())
    (declared,) = await all_schedules(stage)
    await jump(stage, clock, next_of(declared) + 10 * timedelta(seconds=1))
    earlier = await stage.trigger(is_validated=True)
    await fire(stage.engine)

    first, second = await worker.lease()
    assert (await stage.run(first.run_id)).schedule_id == declared.id
    assert second.run_id == earlier


async def test_missed_ticks_are_made_up_by_one_run_with_the_time_of_the_first(stage: Stage, clock: Clock) -> None:
    await stage.worker(scheduled(cron=None))
    made = await create(stage)
    tick = next_of(made)
    await jump(stage, clock, tick + 5 * HOUR + MINUTE)
    await fire(stage.engine)

    (run,) = await runs(stage)
    assert json.loads(run.payload or "")["timestamp"] == tick.isoformat()
    assert next_of(await retrieve(stage, made.id)) == tick + 6 * HOUR


async def test_each_tick_fires_once_however_many_tick(stage: Stage, clock: Clock, dsn: str) -> None:
    await stage.worker(scheduled(cron=None))
    made = [await create(stage) for _ in range(20)]
    tick = next_of(made[0])
    others = [connect(dsn, environment="production", listen_url=direct(dsn)) for _ in range(3)]
    for moment in (tick, tick + HOUR):
        await jump(stage, clock, moment)
        await asyncio.gather(*(fire(engine) for engine in (stage.engine, *others)))
    for other in others:
        await other.close()

    fired = await stage.query("select schedule_id, count(*) from detent.inputs group by 1")
    assert sorted(count for _, count in fired) == [2] * 20


async def test_schedules_that_another_ticker_holds_are_passed_over(stage: Stage, clock: Clock, dsn: str) -> None:
    await stage.worker(scheduled(cron=None))
    made = [await create(stage) for _ in range(10)]
    await jump(stage, clock, next_of(made[0]))
    held = [ids.decode("sched", schedule.id) for schedule in made[:4]]
    async with await AsyncConnection.connect(direct(dsn)) as other:
        await other.execute("select from detent.schedules where id = any(%s) for update", (held,))
        await fire(stage.engine)
        fired = {run.schedule_id for run in await runs(stage)}
    await fire(stage.engine)

    assert fired == {schedule.id for schedule in made[4:]}
    assert len(await runs(stage)) == 10


async def test_maintenance_fires_what_is_due_and_tells_the_workers(stage: Stage, clock: Clock) -> None:
    await stage.worker(scheduled())
    (declared,) = await all_schedules(stage)
    await jump(stage, clock, next_of(declared))
    maintenance = stage.engine.maintenance
    async with asyncio.timeout(30), stage.engine.listen() as wakes:
        running = asyncio.create_task(maintenance.run())
        async for _ in wakes:
            if await runs(stage):
                break
        running.cancel()
    await asyncio.wait([running])
    await maintenance.close()

    assert [run.schedule_id for run in await runs(stage)] == [declared.id]


async def test_run_of_a_tick_has_the_same_id_at_every_try(stage: Stage, clock: Clock) -> None:
    await stage.worker(scheduled())
    (declared,) = await all_schedules(stage)
    tick = next_of(declared)
    await jump(stage, clock, tick)
    await fire(stage.engine)
    await stage.query("update detent.schedules set next_at = %s, due_at = %s", tick, tick)
    await fire(stage.engine)

    (run,) = await runs(stage)
    assert ids.created_at(ids.decode("run", run.id)) == tick


async def test_schedule_that_does_not_stand_where_it_was_read_is_passed_over(stage: Stage, clock: Clock) -> None:
    """It is read again, and fires as it is then."""
    await stage.worker(scheduled(cron=None))
    made = await create(stage)
    tick = next_of(made)
    await jump(stage, clock, tick)
    ((environment,),) = await stage.query("select environment_id from detent.schedules")
    read = {"task": "work", "cron": "0 * * * *", "timezone": "UTC", "next_at": (tick + HOUR).isoformat()}
    for other in ({"at": (tick - HOUR).isoformat()}, {"at": tick.isoformat(), "timezone": "Asia/Tokyo"}):
        moved = await stage.query(
            "select * from detent.fire_schedules(%s, %s, %s, 10)", environment, tick, json.dumps([read | other])
        )
        assert moved == []
    assert next_of(await retrieve(stage, made.id)) == tick


async def test_skipping_schedule_makes_no_run_while_the_last_one_is_not_over(stage: Stage, clock: Clock) -> None:
    worker = await stage.worker(scheduled(cron=None))
    made = await create(stage, Cron("0 * * * *", overlap="skip"))
    tick = next_of(made)
    await jump(stage, clock, tick)
    await fire(stage.engine)
    lease = await worker.lease_one()
    await jump(stage, clock, tick + HOUR)
    await fire(stage.engine)

    assert len(await runs(stage)) == 1
    assert (await retrieve(stage, made.id)).last_run_at == tick
    await worker.succeed(lease)
    await jump(stage, clock, tick + 2 * HOUR)
    await fire(stage.engine)
    assert json.loads((await runs(stage))[-1].payload or "")["last_timestamp"] == tick.isoformat()


async def test_task_that_is_not_in_the_current_version_does_not_fire_and_says_so(
    stage: Stage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    old = await stage.worker(scheduled(cron=None))
    made = await create(stage)
    await old.end()
    new = await stage.worker(task("other"))
    tick = next_of(made)
    await jump(stage, clock, tick)
    with caplog.at_level(logging.WARNING, "detent.schedules"):
        await fire(stage.engine)

    assert await runs(stage) == []
    after = await retrieve(stage, made.id)
    assert next_of(after) == tick + HOUR
    reason = f'task "work" is not in the current version {new.version}; deploy one that has it, or delete the schedule'
    assert after.obstacle == reason
    assert f'1 schedules of task "work" in environment "production" made no run: {reason}' in caplog.text


async def test_time_zone_that_this_host_does_not_know_stops_no_other_schedule(
    stage: Stage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.worker(scheduled())
    (declared,) = await all_schedules(stage)
    await create(stage)
    await stage.query("update detent.schedules set timezone = 'Mars/Olympus' where type = 'IMPERATIVE'")
    await jump(stage, clock, next_of(declared))
    with caplog.at_level(logging.WARNING, "detent.schedules"):
        await fire(stage.engine)

    assert [run.schedule_id for run in await runs(stage)] == [declared.id]
    assert 'schedules of task "work" are left to other hosts: there is no time zone \'Mars/Olympus\'' in caplog.text


async def test_full_queue_takes_no_scheduled_run_and_the_next_tick_comes_all_the_same(
    stage: Stage, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.worker(scheduled())
    (declared,) = await all_schedules(stage)
    tick = next_of(declared)

    async def refuse(*_: object) -> dict[int, Refused]:
        return {0: Refused(status=429, code="queue_full", message="full")}

    monkeypatch.setattr(KnownTasks, "check", refuse)
    await jump(stage, clock, tick)
    await fire(stage.engine)

    assert await runs(stage) == []
    assert next_of(await retrieve(stage, declared.id)) == tick + HOUR


@pytest.fixture
async def development(dsn: str, conn: AsyncConnection) -> AsyncIterator[Stage]:
    backend = connect(dsn, environment="dev", patience=5.0, listen_url=direct(dsn))
    yield Stage(backend, conn)
    await backend.close()


async def test_schedule_fires_while_a_worker_runs(development: Stage, clock: Clock) -> None:
    worker = await development.worker(scheduled())
    (declared,) = await all_schedules(development)
    tick = next_of(declared)
    await jump(development, clock, tick)
    await fire(development.engine)
    assert len(await runs(development)) == 1

    await worker.end()
    await jump(development, clock, tick + HOUR)
    await fire(development.engine)
    assert len(await runs(development)) == 1
    assert "no worker runs" in ((await retrieve(development, declared.id)).obstacle or "")


async def test_nothing_is_made_up(development: Stage, clock: Clock) -> None:
    await development.worker(scheduled())
    (declared,) = await all_schedules(development)
    tick = next_of(declared)
    await jump(development, clock, tick + 30 * MINUTE)
    await fire(development.engine)

    assert await runs(development) == []
    assert next_of(await retrieve(development, declared.id)) == tick + HOUR


# ---- arithmetic ----

MIDNIGHT = datetime(2026, 8, 1, tzinfo=UTC)


def timetable(spread: str | None, cron: str = "0 * * * *") -> Timetable:
    return Timetable(cron=cron, timezone="UTC", spread=spread)


def test_latest_missed_tick_still_fires_where_its_window_is_ahead() -> None:
    quarter_past = MIDNIGHT + 4 * HOUR + 15 * MINUTE
    over, ahead = timetable("100%").following(MIDNIGHT, quarter_past)

    assert (over.tick.at, over.phase_from, over.phase_until) == (MIDNIGHT + 5 * HOUR, 0, 0.25)
    assert (ahead.tick.at, ahead.phase_from, ahead.phase_until) == (MIDNIGHT + 4 * HOUR, 0.25, 1)


def test_window_that_is_over_has_no_part_ahead() -> None:
    (following,) = timetable("10m").following(MIDNIGHT, MIDNIGHT + 4 * HOUR + 15 * MINUTE)

    assert (following.tick.at, following.phase_from, following.phase_until) == (MIDNIGHT + 5 * HOUR, 0, 1)


def test_schedule_lands_in_its_window_at_the_same_place_each_time() -> None:
    schedule = ids.decode("sched", ids.new_schedule_id())
    ticks = [timetable("30%").first_after(MIDNIGHT + HOUR * i) for i in range(5)]

    assert len({tick.due(schedule) - tick.at for tick in ticks}) == 1


async def test_database_and_code_find_the_same_place_in_a_window(stage: Stage) -> None:
    schedules = [ids.decode("sched", ids.new_schedule_id()) for _ in range(100)]
    found = await stage.query("select detent.phase(id) from unnest(%s::uuid[]) as id", schedules)

    assert [there for (there,) in found] == [phase(schedule) for schedule in schedules]


def test_ticks_are_counted_from_the_tick_before_and_not_from_the_clock() -> None:
    (following,) = timetable(None).following(MIDNIGHT, MIDNIGHT + MINUTE)

    assert following.tick.at == MIDNIGHT + HOUR


async def test_late_schedules_go_on_from_where_in_their_window_they_are(stage: Stage, clock: Clock) -> None:
    await stage.worker(scheduled(cron=None))
    made = [await create(stage, Cron("0 * * * *", window="100%")) for _ in range(20)]
    first = next_of(made[0])
    now = first + 4 * HOUR + 30 * MINUTE
    await jump(stage, clock, now)
    await fire(stage.engine)

    after = [await retrieve(stage, schedule.id) for schedule in made]
    assert {next_of(schedule) for schedule in after} == {first + 4 * HOUR, first + 5 * HOUR}
    assert all(schedule.next_run_effective_at is not None and schedule.next_run_effective_at > now for schedule in after)
    assert len(await runs(stage)) == 20
