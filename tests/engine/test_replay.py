"""Runs made again from the input of older ones."""

from __future__ import annotations

from typing import Any

from detent.protocol import ids
from detent.protocol.idempotency import Idempotency
from detent.protocol.refusal import Refused
from detent.protocol.runs import ReplayRequest
from detent.protocol.triggering import Triggered
from tests.engine.stage import SOON, Stage, Worker, limit, queue, request
from tests.engine.test_idempotency import keyed


async def test_a_replay_has_the_input_of_the_original(stage: Stage) -> None:
    worker = await stage.worker(limits=[queue("q")])
    lease = await stage.leased(
        worker, payload='{"n": 1}', tags=("a",), metadata='{"m": 2}', queue="q", concurrency_key="k", is_test=True
    )
    await worker.fail(lease)
    wanted = ReplayRequest(run_id=ids.new_run_id(), replay_of=lease.run_id)
    assert await stage.engine.replay_runs([wanted]) == [Triggered(run_id=wanted.run_id)]
    again = await worker.lease_one()
    assert (again.run_id, again.replay_of, again.attempt) == (wanted.run_id, lease.run_id, 1)
    for name in ("task_id", "payload", "tags", "metadata", "queue", "concurrency_key", "is_test"):
        assert getattr(again, name) == getattr(lease, name)


async def test_a_replay_may_have_another_payload(stage: Stage, worker: Worker) -> None:
    original = await stage.leased(worker, payload="1")
    wanted = ReplayRequest(run_id=ids.new_run_id(), replay_of=original.run_id, payload="2")
    await stage.engine.replay_runs([wanted])
    assert (await worker.lease_one()).payload == "2"


async def test_a_replay_may_differ_in_each_option(stage: Stage) -> None:
    worker = await stage.worker(limits=[queue("q"), queue("r"), limit("l", total=5)])
    old = await stage.leased(worker, tags=("a",), metadata='{"m": 2}', queue="q", concurrency_key="k", machine="micro")
    wanted = ReplayRequest(
        run_id=ids.new_run_id(), replay_of=old.run_id, tags=(), metadata="{}", queue="r", concurrency_key="j", machine="small-1x",
        priority=5.0, ttl=60.0, version=worker.version, max_attempts=9, max_duration=7.0, limits=("l",),
    )  # fmt: skip
    assert await stage.engine.replay_runs([wanted]) == [Triggered(run_id=wanted.run_id)]
    run = await stage.run(wanted.run_id)
    assert (run.tags, run.metadata, run.queue, run.concurrency_key, run.machine) == ((), "{}", "r", "j", "small-1x")
    assert (run.priority, run.ttl, run.version, run.limits) == (5.0, 60.0, worker.version, ("l",))
    assert (run.max_attempts, run.max_duration) == (9, 7.0)


async def test_what_a_replay_leaves_open_of_time_and_tries_is_the_tasks_again(stage: Stage, worker: Worker) -> None:
    old = await stage.trigger(delay=SOON, ttl=60.0, priority=5.0, max_attempts=9, max_duration=7.0)
    wanted = ReplayRequest(run_id=ids.new_run_id(), replay_of=old)
    await stage.engine.replay_runs([wanted])
    run = await stage.run(wanted.run_id)
    assert (run.due_at, run.ttl, run.priority, run.max_attempts, run.max_duration) == (None, None, 0.0, None, None)


async def test_a_replay_with_a_key_is_made_once(stage: Stage, worker: Worker) -> None:
    old, key = await stage.trigger(), Idempotency(key="k", user_key="k", scope="global")
    first, second = [ReplayRequest(run_id=ids.new_run_id(), replay_of=old, idempotency=key) for _ in range(2)]
    assert await stage.engine.replay_runs([first]) == [Triggered(run_id=first.run_id)]
    assert await stage.engine.replay_runs([second]) == [Triggered(run_id=first.run_id, is_cached=True)]


async def test_a_replay_that_asks_for_what_is_not_there_is_refused(stage: Stage, worker: Worker) -> None:
    old = await stage.trigger()
    wanted: list[dict[str, Any]] = [{"version": "v0"}, {"machine": "huge"}]
    requests = [ReplayRequest(run_id=ids.new_run_id(), replay_of=old, **options) for options in wanted]
    answers = await stage.engine.replay_runs(requests)
    assert [getattr(answer, "code", None) for answer in answers] == ["unknown_version", "unknown_machine"]
    assert await stage.count("runs") == 1


async def test_a_run_can_be_replayed_while_it_lives(stage: Stage, worker: Worker) -> None:
    run_id = await stage.trigger()
    await stage.engine.replay_runs([ReplayRequest(run_id=ids.new_run_id(), replay_of=run_id)])
    assert len(await worker.lease()) == 2


async def test_a_replay_is_not_answered_by_the_key_of_the_original(stage: Stage, worker: Worker) -> None:
    original = keyed()
    await stage.engine.trigger([original])
    wanted = ReplayRequest(run_id=ids.new_run_id(), replay_of=original.run_id)
    assert await stage.engine.replay_runs([wanted]) == [Triggered(run_id=wanted.run_id)]


async def test_replaying_an_unknown_run_is_refused_beside_the_good(stage: Stage) -> None:
    (made,) = await stage.engine.trigger([request()])
    unknown = ids.new_run_id()
    refused, good = await stage.engine.replay_runs(
        [ReplayRequest(run_id=ids.new_run_id(), replay_of=of) for of in (unknown, made.run_id)]
    )
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (404, "run_not_found")
    assert unknown in refused.message
    assert isinstance(good, Triggered)


async def test_the_same_replay_twice_makes_one_run(stage: Stage, worker: Worker) -> None:
    run_id = await stage.trigger()
    wanted = ReplayRequest(run_id=ids.new_run_id(), replay_of=run_id)
    for _ in range(2):
        assert await stage.engine.replay_runs([wanted]) == [Triggered(run_id=wanted.run_id)]
    assert await stage.count("runs") == 2
