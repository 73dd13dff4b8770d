"""Who gets which run."""

from __future__ import annotations

from datetime import timedelta

import pytest

from detent.engine.backend import connect
from detent.protocol import ids
from detent.protocol.execution import Isolation
from detent.protocol.status import RunStatus
from tests.database import Clock
from tests.engine.stage import SOON, Stage, Worker, request, task


async def test_a_lease_carries_everything_an_attempt_needs(stage: Stage, worker: Worker) -> None:
    run_id = await stage.trigger(
        payload='{"n": 1}', tags=("a",), metadata="{}", max_duration=5.0, priority=1.0, concurrency_key="k"
    )
    (lease,) = await worker.lease(fence=41)
    assert (lease.run_id, lease.fence, lease.attempt, lease.task_id) == (run_id, 41, 1, "work")
    assert (lease.payload, lease.metadata, lease.tags) == ('{"n": 1}', "{}", ("a",))
    assert (lease.max_duration, lease.max_attempts, lease.priority) == (5.0, 3, 1.0)
    assert (lease.queue, lease.concurrency_key, lease.version) == ("task/work", "k", worker.version)
    assert (lease.isolation, lease.is_resumed, lease.has_journal, lease.results) == (Isolation.ASYNC, False, False, ())
    assert lease.parent_run_id is lease.root_run_id is lease.batch_id is lease.replay_of is None
    assert await stage.status(run_id) is RunStatus.DEQUEUED


async def test_a_run_is_leased_once(stage: Stage, worker: Worker) -> None:
    other = await stage.session(worker.version)
    await stage.trigger()
    assert [len(await each.lease()) for each in (worker, other, worker)] == [1, 0, 0]


async def test_runs_come_in_the_order_they_were_triggered(stage: Stage, worker: Worker) -> None:
    made = [await stage.trigger() for _ in range(10)]
    assert [lease.run_id for lease in await worker.lease()] == made


async def test_priority_puts_a_run_ahead_by_so_many_seconds(stage: Stage, worker: Worker) -> None:
    first, second, late = [await stage.trigger(priority=p) for p in (0.0, 10.0, -10.0)]
    assert [lease.run_id for lease in await worker.lease()] == [second, first, late]


async def test_a_negative_priority_moves_back_and_delays_nothing(stage: Stage, worker: Worker) -> None:
    run_id = await stage.trigger(priority=-3600.0)
    assert (await worker.lease_one()).run_id == run_id


async def test_the_lanes_of_a_line_are_served_strictly_in_order(stage: Stage) -> None:
    worker = await stage.worker(*(task(name, queue="shared") for name in "abc"))
    made = [await stage.trigger("abc"[i % 3]) for i in range(30)]
    got = [(await worker.lease(**{"async": 5})) for _ in range(6)]
    assert [lease.run_id for leases in got for lease in leases] == made


async def test_no_more_is_leased_than_there_is_room_for(stage: Stage, worker: Worker) -> None:
    for _ in range(5):
        await stage.trigger()
    assert len(await worker.lease(**{"async": 2})) == 2
    assert len(await worker.lease(thread=5, process=5)) == 0
    assert len(await worker.lease(**{"async": 0})) == 0
    assert len(await worker.lease(**{"async": 9})) == 3


async def test_each_kind_of_run_takes_room_of_its_own_kind(stage: Stage) -> None:
    worker = await stage.worker(*(task(kind.value, isolation=kind) for kind in Isolation))
    for kind in Isolation:
        for _ in range(3):
            await stage.trigger(kind.value)
    leases = await worker.lease(**{"async": 1, "thread": 2, "process": 0})
    assert sorted(lease.isolation for lease in leases) == [Isolation.ASYNC, Isolation.THREAD, Isolation.THREAD]
    assert {lease.task_id: lease.isolation for lease in leases} == {
        "async": Isolation.ASYNC,
        "thread": Isolation.THREAD,
    }


async def test_many_lanes_share_the_room(stage: Stage, worker: Worker) -> None:
    await stage.engine.trigger([request(concurrency_key=str(i % 20)) for i in range(200)])
    keys = {lease.concurrency_key for lease in await worker.lease(**{"async": 20})}
    assert len(keys) > 5


async def test_only_tasks_of_the_version_are_leased(stage: Stage) -> None:
    old = await stage.worker("old")
    new = await stage.worker("new")
    await stage.trigger("old")
    assert await new.lease() == []
    assert len(await old.lease()) == 1


async def test_environments_do_not_see_each_other(stage: Stage, worker: Worker, dsn: str) -> None:
    prod = connect(dsn, environment="prod")
    run_id = (await prod.trigger([request()]))[0].run_id
    assert await worker.lease() == []
    assert await stage.engine.retrieve_runs([run_id]) == [None]
    assert await stage.engine.cancel_runs([run_id], "not yours") == [None]
    await prod.close()


async def test_a_session_that_ended_leases_nothing(stage: Stage, worker: Worker) -> None:
    await stage.trigger()
    await worker.end()
    assert await worker.lease() == []
    assert len(await (await stage.session(worker.version)).lease()) == 1


async def test_a_session_that_was_never_opened_leases_nothing(stage: Stage, worker: Worker) -> None:
    await stage.trigger()
    assert await Worker(stage.engine, ids.new_session_id(), worker.version).lease() == []


async def test_a_suspect_is_leased_only_into_a_process_of_its_own(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.end(suspects=(lease.run_id,))
    worker = await stage.session(worker.version)
    other = await stage.trigger()
    assert [x.run_id for x in await worker.lease(**{"async": 5, "thread": 5})] == [other]
    (alone,) = await worker.lease(process=1)
    assert (alone.run_id, alone.isolation) == (lease.run_id, Isolation.PROCESS)


async def test_suspects_in_front_do_not_hold_up_those_behind_them(stage: Stage, worker: Worker) -> None:
    suspects = await stage.engine.trigger([request() for _ in range(20)])
    await worker.lease()
    await worker.end(suspects=tuple(made.run_id for made in suspects))
    worker = await stage.session(worker.version)
    behind = await stage.trigger()
    assert [x.run_id for x in await worker.lease(**{"async": 1})] == [behind]


async def test_the_limit_of_attempts_is_fixed_at_the_first_lease(stage: Stage) -> None:
    first = await stage.worker(task("work", max_attempts=5))
    lease = await stage.leased(first)
    await first.fail(lease, retry_in=timedelta(0))
    await first.end()
    await stage.a_moment_passes()
    second = await stage.worker(task("work", max_attempts=2))
    again = await second.lease_one()
    assert (again.max_attempts, again.version) == (5, second.version)


async def test_the_trigger_overrides_the_limits_of_the_task(stage: Stage) -> None:
    worker = await stage.worker(task("work", max_attempts=5, max_duration=60.0))
    assert (await stage.leased(worker, max_attempts=1, max_duration=2.0)).max_attempts == 1
    lease = await stage.leased(worker)
    assert (lease.max_attempts, lease.max_duration) == (5, 60.0)


async def test_a_retry_is_ordered_by_its_due_time(stage: Stage, worker: Worker, clock: Clock) -> None:
    failing = await stage.leased(worker)
    await worker.fail(failing, retry_in=SOON)
    before = await stage.trigger()
    clock.advance(timedelta(minutes=1))
    after = await stage.trigger()
    await stage.tick()
    assert [x.run_id for x in await worker.lease()] == [before, failing.run_id, after]


async def test_an_awaited_child_stands_where_its_parent_stood(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    others = [await stage.trigger() for _ in range(3)]
    answer = await worker.call(parent)
    assert [x.run_id for x in await worker.lease()] == [answer.triggered.run_id, *others]


async def test_a_run_handed_back_keeps_its_place(stage: Stage, worker: Worker) -> None:
    first = await stage.leased(worker)
    second = await stage.trigger()
    await worker.hand_back(first)
    assert [x.run_id for x in await worker.lease()] == [first.run_id, second]


async def test_started_at_is_the_first_lease(stage: Stage, worker: Worker, clock: Clock) -> None:
    first = await stage.leased(worker)
    await worker.hand_back(first)
    clock.advance(timedelta(hours=1))
    again = await worker.lease_one()
    assert again.started_at == first.started_at


@pytest.mark.parametrize("size", [0, 1, 40])
async def test_room_in_plenty_empties_the_queue(stage: Stage, worker: Worker, size: int) -> None:
    await stage.engine.trigger([request() for _ in range(size)])
    assert len(await worker.lease()) == size
    assert await worker.lease() == []
