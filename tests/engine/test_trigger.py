"""Making runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from detent.protocol import ids
from detent.protocol.status import RunStatus
from detent.protocol.triggering import Triggered
from tests.database import Clock
from tests.engine.stage import SOON, Stage, Worker, child, queue, request


async def test_a_run_gets_the_id_its_caller_made(stage: Stage) -> None:
    wanted = [request(), request("other")]
    answers = await stage.engine.trigger(wanted)
    assert answers == [Triggered(run_id=each.run_id) for each in wanted]


async def test_no_requests_make_no_runs(stage: Stage) -> None:
    assert await stage.engine.trigger([]) == []


async def test_a_run_is_read_as_it_was_triggered(stage: Stage) -> None:
    await stage.worker(limits=[queue("mail")])
    run_id = await stage.trigger(
        payload='{"a": 1.0, "b": "\\u0000"}', tags=("user:7", "eu"), metadata='{"k": 1}', queue="mail", concurrency_key="u7",
        priority=2.5, max_attempts=9, max_duration=60.0, is_test=True,
    )  # fmt: skip
    run = await stage.run(run_id)
    assert run.status is RunStatus.QUEUED
    assert (run.task_id, run.payload) == ("work", '{"a": 1.0, "b": "\\u0000"}')
    assert (run.tags, run.metadata) == (("user:7", "eu"), '{"k": 1}')
    assert (run.queue, run.concurrency_key, run.priority) == ("mail", "u7", 2.5)
    assert (run.max_attempts, run.max_duration, run.is_test) == (9, 60.0, True)
    assert (run.attempt, run.started_at, run.finished_at) == (0, None, None)


async def test_a_task_without_payload_has_none(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker, payload=None)
    assert lease.payload is None


async def test_a_run_goes_to_the_queue_of_its_task_unless_told_otherwise(stage: Stage) -> None:
    assert (await stage.run(await stage.trigger("mail"))).queue == "task/mail"
    assert (await stage.run(await stage.trigger("mail", queue="slow"))).queue == "slow"


async def test_the_same_request_twice_makes_one_run(stage: Stage) -> None:
    wanted = request()
    await stage.engine.trigger([wanted])
    await stage.engine.trigger([wanted, wanted])
    assert await stage.count("runs") == 1


async def test_a_delayed_run_starts_when_its_delay_is_over(stage: Stage, worker: Worker, clock: Clock) -> None:
    run_id = await stage.trigger(delay=timedelta(days=7))
    assert await stage.status(run_id) is RunStatus.DELAYED
    clock.advance(timedelta(days=6, hours=23))
    await stage.tick()
    assert await worker.lease() == []
    clock.advance(timedelta(hours=2))
    await stage.tick()
    run = await stage.run(run_id)
    assert run.status is RunStatus.QUEUED
    assert run.due_at is None
    assert run.queued_at is not None
    assert run.queued_at - run.created_at > timedelta(days=7)
    assert (await worker.lease_one()).run_id == run_id


async def test_a_delay_can_be_a_date(stage: Stage, worker: Worker, clock: Clock) -> None:
    moment = datetime.now(UTC) + timedelta(days=1)
    run_id = await stage.trigger(delay=moment)
    assert (await stage.run(run_id)).due_at == moment
    clock.advance(timedelta(days=2))
    await stage.tick()
    assert await stage.status(run_id) is RunStatus.QUEUED


async def test_a_delay_of_nothing_or_to_a_past_date_delays_nothing(stage: Stage, worker: Worker) -> None:
    first = await stage.trigger(delay=timedelta(0))
    second = await stage.trigger(delay=datetime(2020, 1, 1, tzinfo=UTC))
    assert await stage.statuses(first, second) == [RunStatus.QUEUED, RunStatus.QUEUED]


async def test_a_delayed_run_may_be_given_to_a_worker_only_once_however_many_tick(
    stage: Stage, worker: Worker, clock: Clock
) -> None:
    await stage.trigger(delay=SOON)
    clock.advance(timedelta(hours=1))
    await stage.tick()
    await stage.tick()
    assert len(await worker.lease()) == 1


async def test_a_child_knows_its_parent_and_its_root(stage: Stage, worker: Worker) -> None:
    root = await stage.leased(worker, is_test=True)
    (made,) = await stage.engine.trigger_children([child(root, "0", wait=False)])
    parent = await worker.lease_one()
    (grandchild,) = await stage.engine.trigger_children([child(parent, "0", wait=False)])
    last = await worker.lease_one()
    assert (parent.parent_run_id, parent.root_run_id) == (root.run_id, root.run_id)
    assert (last.parent_run_id, last.root_run_id) == (parent.run_id, root.run_id)
    assert made.triggered.run_id == parent.run_id
    assert grandchild.triggered.run_id == last.run_id
    assert last.is_test


async def test_ids_rise_with_the_order_of_triggering(stage: Stage) -> None:
    made = [await stage.trigger() for _ in range(20)]
    assert made == sorted(made)
    assert len({ids.decode("run", run_id) for run_id in made}) == 20
