"""What stands in the way of runs, and what nobody sees to, is found; and nothing where all is well."""

from __future__ import annotations

from datetime import timedelta

import pytest

from detent.engine import health
from detent.protocol.flow import LimitKind, Pause
from detent.protocol.health import ForsakenTask, HealthRecord, UndeclaredLimit
from detent.protocol.waits import Suspended
from tests.database import Clock
from tests.engine.stage import ENVIRONMENT, Stage, limit, queue, queue_ref, task

LATE = timedelta(seconds=health.LATE_SECONDS + 1)


async def health_of(stage: Stage) -> HealthRecord:
    return await stage.engine.read_health()


async def test_nothing_is_found_where_all_is_well(stage: Stage) -> None:
    worker = await stage.worker("work")
    await stage.leased(worker)
    await stage.trigger()
    found = await health_of(stage)
    assert [(each.name, each.version, each.runners, each.is_live) for each in found.workers] == [
        ("host:1", worker.version, 1, True)
    ]
    assert 0 <= found.workers[0].silence < 15
    assert (found.forsaken_tasks, found.paused, found.undeclared, found.late_runs) == ((), (), (), ())
    assert (found.late_count, found.miscounted, found.overdue) == (0, 0, ())


async def test_runners_of_one_worker_and_version_are_counted_together(stage: Stage) -> None:
    worker = await stage.worker("work")
    await stage.session(worker.version)
    (found,) = (await health_of(stage)).workers
    assert found.runners == 2


async def test_worker_without_a_heartbeat_is_not_live_and_its_task_has_none(stage: Stage) -> None:
    await stage.worker("work")
    await stage.trigger_many(2)
    await stage.query("update detent.sessions set beat_at = beat_at - interval '1 minute'")
    found = await health_of(stage)
    assert [each.is_live for each in found.workers] == [False]
    assert found.forsaken_tasks == (ForsakenTask(task_id="work", runs=2),)


async def test_runs_of_a_task_that_the_live_version_lacks_are_found_also_when_they_wait(stage: Stage) -> None:
    old = await stage.worker("work", "gone")
    lease = await stage.leased(old, "gone")
    assert isinstance(await old.sleep(lease), Suspended)
    await stage.trigger("never-registered", delay=timedelta(hours=1))
    await old.end()
    await stage.worker("work")
    assert (await health_of(stage)).forsaken_tasks == (
        ForsakenTask(task_id="gone", runs=1),
        ForsakenTask(task_id="never-registered", runs=1),
    )


async def test_what_is_paused_is_found(stage: Stage) -> None:
    await stage.worker(task("work", queue="emails"), limits=[queue("emails"), queue("open")])
    await stage.change(Pause(ref=queue_ref("emails")))
    await stage.change(Pause(ref=ENVIRONMENT))
    found = (await health_of(stage)).paused
    assert [(each.kind, each.name) for each in found] == [(LimitKind.ENVIRONMENT, ""), (LimitKind.QUEUE, "emails")]


async def test_queue_and_limit_that_no_code_declares_are_found_with_the_runs_that_wait_for_them(stage: Stage) -> None:
    await stage.worker("work", limits=[limit("openai", total=1)])
    for _ in range(2):
        await stage.trigger(queue="lost")
    await stage.trigger(limits=("nowhere", "openai"))
    assert (await health_of(stage)).undeclared == (
        UndeclaredLimit(kind=LimitKind.LIMIT, name="nowhere", runs=1),
        UndeclaredLimit(kind=LimitKind.QUEUE, name="lost", runs=2),
    )


async def test_task_that_nobody_has_registered_is_not_told_of_as_a_queue_as_well(stage: Stage) -> None:
    await stage.trigger("never-registered")
    assert (await health_of(stage)).undeclared == ()


async def test_runs_that_are_ready_for_long_are_found_with_the_reason_the_oldest_first(
    stage: Stage, clock: Clock
) -> None:
    await stage.worker(task("work", queue="emails"), limits=[queue("emails")])
    await stage.change(Pause(ref=queue_ref("emails")))
    runs = [await stage.trigger() for _ in range(7)]
    clock.advance(LATE)
    await stage.trigger()
    found = await health_of(stage)
    assert ([each.run_id for each in found.late_runs], found.late_count) == (runs[:5], 7)
    assert [each.reason.code for each in found.late_runs if each.reason is not None] == ["PAUSED"] * 5


async def test_priority_makes_no_run_late(stage: Stage) -> None:
    await stage.worker("work")
    await stage.trigger(priority=2 * LATE.total_seconds())
    assert (await health_of(stage)).late_count == 0


async def test_delayed_run_is_not_late(stage: Stage, clock: Clock) -> None:
    await stage.worker("work")
    await stage.trigger(delay=timedelta(days=1))
    clock.advance(LATE)
    assert (await health_of(stage)).late_count == 0


async def test_miscounted_slots_are_found(stage: Stage) -> None:
    worker = await stage.worker(task("work", limits=("openai",)), limits=[limit("openai", total=2)])
    await stage.leased(worker)
    await stage.query("update detent.gates set taken = taken + 1")
    assert (await health_of(stage)).miscounted == 1
    await stage.query("update detent.gates set taken = taken - 1")
    assert (await health_of(stage)).miscounted == 0


@pytest.mark.usefixtures("worker")
async def test_shelf_without_a_partition_for_today_is_found(stage: Stage, clock: Clock) -> None:
    maintenance = stage.engine.maintenance
    await maintenance.keep_house()
    assert (await health_of(stage)).shelves_behind == ()
    clock.advance(timedelta(days=10))
    assert (await health_of(stage)).shelves_behind == ("history_30", "logs_30")
    await maintenance.keep_house()
    assert (await health_of(stage)).shelves_behind == ()
    await maintenance.close()


@pytest.mark.usefixtures("worker")
async def test_partition_that_nobody_drops_is_found(stage: Stage, clock: Clock) -> None:
    maintenance = stage.engine.maintenance
    await maintenance.keep_house()
    assert (await health_of(stage)).overdue == ()
    clock.advance(timedelta(days=40))
    assert {name.partition("_30_")[0] for name in (await health_of(stage)).overdue} == {"history", "logs"}
    await maintenance.keep_house()
    assert (await health_of(stage)).overdue == ()
    await maintenance.close()
