"""`schedules`: what a scheduled task is, and what calls ask for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from detent import (
    Client,
    Context,
    Cron,
    DefinitionError,
    NotFoundError,
    Retry,
    ScheduledPayload,
    ScheduleError,
    ScheduleType,
    UnprocessableEntityError,
    runs,
    schedules,
    task,
)
from detent.engine.backend import EngineBackend
from detent.protocol import ids
from detent.protocol.refusal import Refused
from detent.protocol.registration import WorkerRegistration
from detent.protocol.schedules import ScheduleRecord, ScheduleRequest
from detent.protocol.sessions import SessionOpening
from detent.sdk.definition import AnyTask
from tests.database import Clock

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)


async def register(engine: EngineBackend, *tasks: AnyTask) -> str:
    return await engine.register_worker(WorkerRegistration(tasks=tuple(task.registration(Retry()) for task in tasks)))


def test_scheduled_task_is_a_task_with_a_cron() -> None:
    @schedules.task(id="daily-report", cron=Cron("0 5 * * *", timezone="Asia/Tokyo"), retry=5, ttl="5m")
    async def daily_report(payload: ScheduledPayload, ctx: Context) -> None: ...

    registered = daily_report.registration(Retry())
    assert registered.task_id == "daily-report"
    assert registered.cron == Cron("0 5 * * *", timezone="Asia/Tokyo")
    assert registered.ttl == 300


def test_text_is_a_pattern_in_utc_and_no_cron_declares_no_schedule() -> None:
    @schedules.task(cron="0 5 * * *")
    def nightly() -> None: ...

    @schedules.task()
    async def on_demand(payload: ScheduledPayload) -> None: ...

    assert nightly.registration(Retry()).cron == Cron("0 5 * * *")
    assert on_demand.registration(Retry()).cron is None


def test_payload_becomes_a_scheduled_payload_though_nothing_is_annotated() -> None:
    @schedules.task()
    async def report(payload):  # type: ignore[no-untyped-def]
        return payload

    given = ScheduledPayload(
        timestamp=NOON, timezone="Asia/Tokyo", schedule_id="sched_x", type=ScheduleType.IMPERATIVE, upcoming=(NOON,)
    )
    text = report.encode_payload(given)
    assert text is not None
    assert report.decode_payload(text) == given
    assert given.local.isoformat() == "2026-08-01T21:00:00+09:00"


def test_wrong_definitions_are_refused() -> None:
    with pytest.raises(DefinitionError, match="its payload is a ScheduledPayload: annotate it so"):

        @schedules.task()  # type: ignore[arg-type]
        async def typed(payload: int) -> None: ...

    with pytest.raises(ScheduleError, match='the minute of cron "x 5 \\* \\* \\*" cannot be "x"'):
        schedules.task(cron="x 5 * * *")
    with pytest.raises(DefinitionError, match=r"cron= is an option of @schedules\.task"):
        task(cron="0 5 * * *")(lambda: None)  # type: ignore[call-overload]
    with pytest.raises(DefinitionError, match="unknown option 'crn'"):
        schedules.task(crn="0 5 * * *")(lambda: None)  # type: ignore[call-arg]


async def test_schedule_is_made_changed_and_deleted(engine: EngineBackend) -> None:
    @schedules.task()
    async def report(payload: ScheduledPayload) -> None: ...

    await register(engine, report)
    made = await schedules.create(
        task=report, cron="0 8 * * *", timezone="Asia/Tokyo", external_id="user_7", deduplication_key="user_7-report"
    )
    assert made == await schedules.retrieve(made.id)
    assert made.id.startswith("sched_")
    assert [schedule async for schedule in schedules.list()] == [made]

    changed = await schedules.update(made.id, cron="0 9 * * *", window="30m")
    assert (changed.cron, changed.timezone, changed.window) == ("0 9 * * *", "Asia/Tokyo", "30m")
    assert changed.external_id == "user_7"
    cleared = await schedules.update(made.id, external_id=None, window=None, timezone="UTC", overlap="skip")
    assert (cleared.external_id, cleared.window, cleared.timezone, cleared.overlap) == (None, None, "UTC", "skip")

    same = await schedules.create(
        task="report", cron=Cron("0 8 * * *", overlap="skip"), deduplication_key="user_7-report"
    )
    assert (same.id, same.cron, same.overlap) == (made.id, "0 8 * * *", "skip")
    assert not (await schedules.deactivate(made.id)).is_active
    assert (await schedules.activate(made.id)).is_active
    assert (await schedules.delete(made.id)).id == made.id
    with pytest.raises(NotFoundError, match=f"there is no schedule {made.id}"):
        await schedules.retrieve(made.id)


async def test_schedules_made_in_one_moment_go_out_as_one_call(
    engine: EngineBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    @schedules.task()
    async def report(payload: ScheduledPayload) -> None: ...

    calls: list[int] = []
    create = EngineBackend.create_schedules

    async def counted(self: EngineBackend, requests: Sequence[ScheduleRequest]) -> list[ScheduleRecord | Refused]:
        calls.append(len(requests))
        return await create(self, requests)

    monkeypatch.setattr(EngineBackend, "create_schedules", counted)
    await register(engine, report)
    users = [f"user_{number}" for number in range(20)]
    made = await asyncio.gather(*(schedules.create(task=report, cron="0 8 * * *", external_id=user) for user in users))

    assert calls == [20]
    assert [schedule.external_id for schedule in made] == users


async def test_scheduled_run_is_given_what_the_task_declares(engine: EngineBackend, clock: Clock) -> None:
    @schedules.task(cron=Cron("0 5 * * *", "Asia/Tokyo"))
    async def report(payload: ScheduledPayload) -> None: ...

    version = await register(engine, report)
    await engine.open_session(SessionOpening(session_id=ids.new_session_id(), version=version, worker="host:1"))
    (declared,) = await schedules.list()
    assert declared.next_run_at is not None
    clock.advance(declared.next_run_at - datetime.now(UTC) + timedelta(seconds=1))
    maintenance = engine.maintenance
    await maintenance.fire_schedules()
    await maintenance.close()

    (run,) = (await runs.list()).runs
    assert run.schedule_id == declared.id
    tick = declared.next_run_at
    assert report.decode_payload(json.dumps(run.payload)) == ScheduledPayload(
        timestamp=tick,
        timezone="Asia/Tokyo",
        schedule_id=declared.id,
        type=ScheduleType.DECLARATIVE,
        upcoming=tuple(tick + timedelta(days=i) for i in range(1, 11)),
    )


async def test_list_goes_on_over_pages(engine: EngineBackend) -> None:
    @schedules.task()
    async def report() -> None: ...

    await register(engine, report)
    made = [await schedules.create(task=report, cron="0 8 * * *") for _ in range(5)]

    page = await schedules.list(per_page=2)
    assert (list(page), page.has_next_page) == (made[:2], True)
    assert [schedule async for schedule in schedules.list(per_page=2)] == made


async def test_wrong_calls_are_refused(engine: EngineBackend) -> None:
    @schedules.task()
    async def report(payload: ScheduledPayload) -> None: ...

    @task
    async def charge(order: int) -> None: ...

    await register(engine, report, charge)
    with pytest.raises(
        UnprocessableEntityError, match='no worker has registered a task "reprot"; did you mean "report"'
    ):
        await schedules.create(task="reprot", cron="0 8 * * *")
    with pytest.raises(UnprocessableEntityError, match=r"define it with @schedules\.task"):
        await schedules.create(task=charge, cron="0 8 * * *")
    with pytest.raises(ScheduleError, match='did you mean "Asia/Tokyo"'):
        await schedules.create(task=report, cron="0 8 * * *", timezone="Asia/Tokio")
    with pytest.raises(TypeError, match=r"schedules\.create needs task= and cron="):
        await schedules.create(task=report)
    with pytest.raises(TypeError, match=r"unknown option 'tz' of schedules\.create"):
        await schedules.create(task=report, cron="0 8 * * *", tz="UTC")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="cron= is a Cron, which says its timezone itself"):
        await schedules.create(task=report, cron=Cron("0 8 * * *"), timezone="UTC")
    with pytest.raises(TypeError, match="a task is given as itself or by its id, not as 5"):
        await schedules.create(task=5, cron="0 8 * * *")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is no sched id"):
        await schedules.retrieve("run_1")
    with pytest.raises(NotFoundError):
        await schedules.deactivate(ids.new_schedule_id())


async def test_time_zones_begin_with_utc() -> None:
    assert (await schedules.timezones())[0] == "UTC"
    assert "UTC" not in await schedules.timezones(exclude_utc=True)


def test_blocking_twins_do_the_same(home: str) -> None:
    assert schedules.sync.timezones()[0] == "UTC"
    with Client(database_url=home).sync as client:
        assert list(client.schedules.list()) == []
        with pytest.raises(UnprocessableEntityError):
            client.schedules.create(task="report", cron="0 8 * * *")
        with pytest.raises(NotFoundError):
            client.schedules.update(ids.new_schedule_id(), cron="0 8 * * *")
