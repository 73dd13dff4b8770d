"""Schedules: declared by code, and made and changed by calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from detent.engine.backend import EngineBackend, connect
from detent.protocol import ids
from detent.protocol.cron import Cron
from detent.protocol.refusal import Refused
from detent.protocol.schedules import (
    Activation,
    Deactivation,
    Deletion,
    ScheduleRecord,
    ScheduleRequest,
    ScheduleType,
    ScheduleUpdate,
)
from tests.database import Clock
from tests.engine.scheduling import (
    DAY,
    EVERY_HOUR,
    HOUR,
    MINUTE,
    all_schedules,
    change,
    create,
    fire,
    jump,
    next_of,
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


async def test_registration_makes_changes_and_removes(stage: Stage) -> None:
    await stage.worker(scheduled("a"), scheduled("b"), task("c"))
    assert {(s.task_id, s.cron, s.type) for s in await all_schedules(stage)} == {
        ("a", "0 * * * *", ScheduleType.DECLARATIVE),
        ("b", "0 * * * *", ScheduleType.DECLARATIVE),
    }
    before = {s.task_id: s.id for s in await all_schedules(stage)}

    await stage.worker(scheduled("a", Cron("0 5 * * *", "Asia/Tokyo", window="30m", overlap="skip")), task("b"))
    (left,) = await all_schedules(stage)
    assert left.id == before["a"]
    assert (left.cron, left.timezone, left.window, left.overlap) == ("0 5 * * *", "Asia/Tokyo", "30m", "skip")
    assert left.description == "At 05:00 every day"


async def test_unchanged_schedule_keeps_its_next_tick(stage: Stage, clock: Clock) -> None:
    await stage.worker(scheduled("a"))
    (declared,) = await all_schedules(stage)
    clock.advance(3 * HOUR)
    await stage.worker(scheduled("a"), task("b"))

    assert await all_schedules(stage) == [declared]


async def test_other_environments_declare_nothing(stage: Stage) -> None:
    await stage.worker(
        scheduled("a", Cron("0 * * * *", environments=("staging",))),
        scheduled("b", Cron("0 * * * *", environments=("staging", "production"))),
    )

    assert [s.task_id for s in await all_schedules(stage)] == ["b"]


async def test_old_version_declares_nothing_while_a_newer_one_lives(stage: Stage) -> None:
    await stage.worker(scheduled("a"))
    newer = await stage.worker(scheduled("a", Cron("0 5 * * *")))
    await stage.worker(scheduled("a"))
    assert [s.cron for s in await all_schedules(stage)] == ["0 5 * * *"]

    await newer.end()
    await stage.worker(scheduled("a"))
    assert [s.cron for s in await all_schedules(stage)] == ["0 * * * *"]


async def test_imperative_ones_stay(stage: Stage) -> None:
    await stage.worker(scheduled("a"))
    made = await create(stage, task_id="a")
    await stage.worker(scheduled("a", cron=None))

    assert await all_schedules(stage) == [made]


async def test_declared_schedule_is_changed_by_code_alone(stage: Stage) -> None:
    await stage.worker(scheduled("a"))
    (declared,) = await all_schedules(stage)
    changes = [
        ScheduleUpdate(schedule_id=declared.id, task_id="a", cron=EVERY_HOUR, external_id=None),
        Activation(schedule_id=declared.id),
        Deactivation(schedule_id=declared.id),
        Deletion(schedule_id=declared.id),
    ]
    for answer in await stage.engine.change_schedules(changes):
        assert isinstance(answer, Refused)
        assert answer.message == f'schedule {declared.id} is declared by the code of task "a"; change its cron= there'
    assert await all_schedules(stage) == [declared]




async def test_same_deduplication_key_changes_the_schedule(stage: Stage) -> None:
    await stage.worker(scheduled(cron=None))
    first = await create(stage, deduplication_key="user_7", external_id="a")
    second = await create(stage, Cron("0 5 * * *"), deduplication_key="user_7", external_id="b")

    assert (second.id, second.cron, second.external_id) == (first.id, "0 5 * * *", "b")
    assert len(await all_schedules(stage)) == 1


async def test_same_key_from_many_at_once_is_one_schedule(stage: Stage) -> None:
    await stage.worker(scheduled(cron=None))
    made = await asyncio.gather(*(create(stage, deduplication_key="user_7") for _ in range(10)))

    assert len({schedule.id for schedule in made}) == len(await all_schedules(stage)) == 1


async def test_without_a_key_there_may_be_many_alike(stage: Stage) -> None:
    await stage.worker(scheduled(cron=None))
    await create(stage, external_id="a")
    await create(stage, external_id="a")

    assert len(await all_schedules(stage)) == 2


async def test_many_are_made_in_one_call_and_each_request_has_its_own_answer(stage: Stage) -> None:
    await stage.worker(scheduled(cron=None))
    before = await create(stage, deduplication_key="a")
    requests = [
        ScheduleRequest(schedule_id=ids.new_schedule_id(), task_id=task_id, cron=Cron(pattern), deduplication_key=key)
        for task_id, pattern, key in (
            ("work", "0 1 * * *", "a"),
            ("wrok", "0 2 * * *", "b"),
            ("work", "0 3 * * *", "b"),
            ("work", "0 4 * * *", "b"),
            ("work", "0 5 * * *", None),
        )
    ]
    changed, unknown, third, fourth, fifth = await stage.engine.create_schedules(requests)

    assert isinstance(changed, ScheduleRecord)
    assert isinstance(unknown, Refused)
    assert isinstance(fifth, ScheduleRecord)
    assert (changed.id, changed.cron, unknown.code) == (before.id, "0 1 * * *", "unknown_task")
    assert third == fourth
    assert [record.cron for record in await all_schedules(stage)] == ["0 1 * * *", "0 4 * * *", "0 5 * * *"]
    assert fifth.id == requests[4].schedule_id


async def test_changed_schedule_keeps_its_place_in_its_window(stage: Stage) -> None:
    await stage.worker(scheduled(cron=None))
    made = await create(stage, Cron("0 1 * * *", window="1h"), deduplication_key="a")
    changed = await create(stage, Cron("0 2 * * *", window="1h"), deduplication_key="a")

    assert made.next_run_effective_at is not None
    assert changed.next_run_effective_at == next_of(changed) + (made.next_run_effective_at - next_of(made))

async def test_change_of_what_is_not_its_time_keeps_the_next_tick(stage: Stage, clock: Clock) -> None:
    await stage.worker(scheduled(cron=None))
    made = await create(stage, Cron("0 0 1 * *"))
    clock.advance(40 * DAY)
    update = ScheduleUpdate(schedule_id=made.id, task_id="work", cron=Cron("0 0 1 * *", overlap="skip"), external_id="x")
    changed = await change(stage, update)
    assert (changed.overlap, changed.external_id, changed.next_run_at) == ("skip", "x", made.next_run_at)

    later = ScheduleUpdate(schedule_id=made.id, task_id="work", cron=Cron("0 1 1 * *"), external_id=None)
    assert next_of(await change(stage, later)) > next_of(made) + DAY


async def test_deactivated_schedule_does_not_fire_and_goes_on_with_the_next_tick(
    stage: Stage, clock: Clock
) -> None:
    await stage.worker(scheduled(cron=None))
    made = await create(stage)
    off = await change(stage, Deactivation(schedule_id=made.id))
    assert (off.is_active, off.next_run_at, off.next_run_effective_at) == (False, None, None)
    clock.advance(2 * DAY)
    await fire(stage.engine)
    assert await runs(stage) == []

    on = await change(stage, Activation(schedule_id=made.id))
    assert on.is_active
    assert next_of(on) - next_of(made) == 2 * DAY
    assert await change(stage, Activation(schedule_id=made.id)) == on


async def test_deleted_schedule_is_gone_and_its_runs_stay(stage: Stage, clock: Clock) -> None:
    await stage.worker(scheduled(cron=None))
    made = await create(stage)
    await jump(stage, clock, next_of(made))
    await fire(stage.engine)
    await change(stage, Deletion(schedule_id=made.id))

    assert await stage.engine.retrieve_schedules([made.id]) == [None]
    assert len(await runs(stage)) == 1
    (answer,) = await stage.engine.change_schedules([Deletion(schedule_id=made.id)])
    assert isinstance(answer, Refused)
    assert (answer.status, answer.message) == (404, f"there is no schedule {made.id} in environment production")


@pytest.mark.parametrize(
    ("task_id", "code", "message"),
    [
        ("wrok", "unknown_task", 'no worker has registered a task "wrok"; did you mean "work"?'),
        ("xyz", "unknown_task", "start a worker that has it first"),
        ("plain", "task_not_scheduled", 'task "plain" takes no ScheduledPayload'),
    ],
)
async def test_task_that_cannot_be_scheduled_is_refused(
    stage: Stage, task_id: str, code: str, message: str
) -> None:
    await stage.worker(scheduled(cron=None), task("plain", payload_schema='{"type": "string"}'))
    request = ScheduleRequest(schedule_id=ids.new_schedule_id(), task_id=task_id, cron=EVERY_HOUR)
    (answer,) = await stage.engine.create_schedules([request])

    assert isinstance(answer, Refused)
    assert (answer.status, answer.code) == (422, code)
    assert message in answer.message


async def test_list_comes_in_pages(stage: Stage) -> None:
    await stage.worker(scheduled(cron=None))
    made = [await create(stage) for _ in range(5)]

    assert await stage.engine.list_schedules(offset=2, limit=2) == (made[2:4], 5)


async def test_windows_spread_schedules_and_keep_the_nominal_times(stage: Stage, clock: Clock) -> None:
    await stage.worker(scheduled(cron=None))
    made = [await create(stage, Cron("0 * * * *", window="30m")) for _ in range(20)]
    starts = {schedule.next_run_effective_at for schedule in made}
    tick = next_of(made[0])

    assert len(starts) == 20
    assert all(start is not None and tick <= start < tick + 30 * MINUTE for start in starts)
    await jump(stage, clock, tick + 15 * MINUTE)
    await fire(stage.engine)
    assert 0 < len(await runs(stage)) < 20
    assert {json.loads(run.payload or "")["timestamp"] for run in await runs(stage)} == {tick.isoformat()}


