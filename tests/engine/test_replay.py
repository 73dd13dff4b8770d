"""Runs made again from the input of older ones."""

from __future__ import annotations

from detent.protocol import ids
from detent.protocol.refusal import Refused
from detent.protocol.runs import ReplayRequest
from detent.protocol.triggering import Triggered
from tests.engine.stage import Stage, Worker, queue, request
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
