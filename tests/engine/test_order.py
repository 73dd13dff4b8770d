"""Who comes first: order inside a line, turns between lines."""

from __future__ import annotations

from datetime import timedelta

import pytest

from detent.protocol.execution import Isolation
from detent.protocol.flow import Override, Rate
from tests.database import Clock
from tests.engine.stage import ENVIRONMENT, Stage, Worker, limit, queue, task

ONE = {"async": 1}


async def in_turn(stage: Stage, worker: Worker, count: int) -> list[str]:
    """Lease one run after the other, each when the one before has ended; return their queues, or their keys."""
    order = []
    for _ in range(count):
        (lease,) = await worker.lease(**ONE)
        order.append(lease.concurrency_key or lease.task_id)
        await worker.succeed(lease)
    return order


async def shared(stage: Stage, **bounds: int) -> Worker:
    """Tasks a, b and c with a queue each, and one limit for all."""
    return await stage.worker(*(task(name, limits=("db",)) for name in "abc"), limits=[limit("db", **bounds)])


async def test_queues_take_turns_when_a_worker_has_room_for_one(stage: Stage) -> None:
    worker = await stage.worker("a", "b", "c")
    for name in "abc":
        await stage.trigger_many(4, name)
    order = await in_turn(stage, worker, 12)
    assert all(set(order[i : i + 3]) == {"a", "b", "c"} for i in range(0, 12, 3))


async def test_keys_take_turns_when_a_worker_has_room_for_one(stage: Stage) -> None:
    worker = await stage.worker("work")
    for key in "abc":
        await stage.trigger_many(4, concurrency_key=key)
    order = await in_turn(stage, worker, 12)
    assert all(set(order[i : i + 3]) == {"a", "b", "c"} for i in range(0, 12, 3))


@pytest.mark.parametrize("by", ["queue", "key", "environment"])
async def test_lines_take_turns_when_a_limit_has_room_for_one(stage: Stage, by: str) -> None:
    worker = await shared(stage, **({} if by == "environment" else {"total": 1}))
    if by == "environment":
        await stage.change(Override(ref=ENVIRONMENT, total=1))
    for name in "abc":
        await stage.trigger_many(4, "a" if by == "key" else name, concurrency_key=name if by == "key" else None)
    order = []
    while leases := await worker.lease():
        (lease,) = leases
        order.append(lease.concurrency_key or lease.task_id)
        await worker.succeed(lease)
    assert len(order) == 12
    assert all(set(order[i : i + 3]) == {"a", "b", "c"} for i in range(0, 12, 3))


async def test_a_line_that_comes_late_does_not_wait_for_the_backlog_of_others(stage: Stage) -> None:
    worker = await stage.worker("work")
    await stage.trigger_many(50, concurrency_key="big")
    await in_turn(stage, worker, 3)
    await stage.trigger(concurrency_key="small")
    assert "small" in await in_turn(stage, worker, 2)


async def test_a_run_that_its_own_limit_stops_holds_back_nobody_else_of_its_line(stage: Stage) -> None:
    worker = await stage.worker("work", limits=[limit("gpu", total=1)])
    await stage.leased(worker, limits=("gpu",))
    stopped = await stage.trigger(limits=("gpu",))
    free = await stage.trigger_many(2)
    assert [lease.run_id for lease in await worker.lease(**ONE)] == free[:1]
    assert [lease.run_id for lease in await worker.lease()] == free[1:]
    reason = (await stage.run(stopped)).waiting_reason
    assert reason is not None
    assert reason.code == "AT_LIMIT"


async def test_priority_orders_inside_a_line_that_its_limit_holds_back(stage: Stage) -> None:
    worker = await stage.worker(task("work", queue="emails"), limits=[queue("emails", 1)])
    lease = await stage.leased(worker)
    late, early = await stage.trigger(), await stage.trigger(priority=60.0)
    for expected in (early, late):
        await worker.succeed(lease)
        lease = await worker.lease_one()
        assert lease.run_id == expected


async def test_a_resumed_run_stands_at_its_original_place(stage: Stage, clock: Clock) -> None:
    worker = await stage.worker(task("work", queue="emails"), limits=[queue("emails", 1)])
    first = await stage.leased(worker)
    await worker.sleep(first, minutes=1)
    second = await stage.leased(worker)
    third = await stage.trigger()
    clock.advance(timedelta(minutes=1))
    await stage.tick()
    await worker.succeed(second)
    resumed = await worker.lease_one()
    assert resumed.run_id == first.run_id
    await worker.succeed(resumed)
    assert (await worker.lease_one()).run_id == third


async def test_the_children_of_an_old_parent_go_first(stage: Stage) -> None:
    worker = await stage.worker("work", task("item", queue="emails"), limits=[queue("emails", 1)])
    parent = await stage.leased(worker)
    busy = await stage.leased(worker, "item")
    other = await stage.trigger("item")
    await worker.call(parent, task_id="item")
    await worker.succeed(busy)
    lease = await worker.lease_one()
    assert (lease.parent_run_id, lease.run_id != other) == (parent.run_id, True)


async def test_one_lease_takes_all_that_may_start_however_it_lies_in_lanes(stage: Stage) -> None:
    names = [f"t{i}" for i in range(12)]
    worker = await stage.worker(*names)
    for name in names:
        await stage.trigger(name)
    await stage.trigger_many(80, names[0])
    assert len(await worker.lease(**{"async": 100})) == 92


async def test_lanes_that_have_become_empty_take_no_room_from_others(stage: Stage) -> None:
    worker = await stage.worker("work")
    for i in range(60):
        await stage.trigger(concurrency_key=f"{i}")
    await worker.succeed(*await worker.lease())
    await stage.trigger_many(100, concurrency_key="7")
    assert len(await worker.lease(**{"async": 60})) == 60


async def test_a_lease_short_of_one_kind_of_room_fills_the_others(stage: Stage) -> None:
    both = [task("slow", isolation=Isolation.THREAD), *(task(f"t{i}", limits=("db",)) for i in range(4))]
    worker = await stage.worker(*both, limits=[limit("db", total=2)])
    for i in range(4):
        await stage.trigger(f"t{i}")
    leases = await worker.lease()
    assert len(leases) == 2
    await stage.trigger_many(3, "slow")
    await worker.succeed(*leases)
    assert len(await worker.lease(**{"async": 10, "thread": 1})) == 3


async def test_an_empty_lane_that_was_woken_is_still_looked_at(stage: Stage, clock: Clock) -> None:
    """A delayed run comes into a lane without a key, and is cancelled before anybody leases."""
    worker = await stage.worker(task("work", limits=("api",)), limits=[limit("api", rate=Rate(starts=1, period=60.0))])
    await worker.succeed(await stage.leased(worker))
    waiting, delayed = await stage.trigger(), await stage.trigger(delay=timedelta(seconds=5))
    assert await worker.lease() == []
    clock.advance(timedelta(seconds=5))
    await stage.tick()
    await stage.engine.cancel_runs([waiting, delayed], "enough")
    assert await worker.lease() == []
    clock.advance(timedelta(minutes=2))
    await stage.tick()
    assert (await stage.leased(worker)).task_id == "work"
