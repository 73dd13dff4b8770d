"""Idempotency keys: one key, one run."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from detent.engine.backend import EngineBackend, connect
from detent.protocol.idempotency import Idempotency
from detent.protocol.status import RunStatus
from detent.protocol.triggering import Triggered, TriggerRequest
from tests.database import Clock
from tests.engine.stage import SOON, Stage, Worker, child, journal_of, request

KEY = "k" * 64


def keyed(
    task_id: str = "work", *, key: str = KEY, ttl: timedelta = timedelta(days=30), **options: Any
) -> TriggerRequest:
    return request(task_id, idempotency=Idempotency(key=key, user_key="order-1", scope="global", ttl=ttl), **options)


async def trigger(engine: EngineBackend, *requests: TriggerRequest) -> list[Triggered]:
    answers = await engine.trigger(requests)
    return [answer for answer in answers if isinstance(answer, Triggered)]


async def test_a_second_trigger_of_a_key_answers_with_the_first_run(stage: Stage, worker: Worker) -> None:
    (first,) = await trigger(stage.engine, keyed())
    (second,) = await trigger(stage.engine, keyed())
    assert second == Triggered(run_id=first.run_id, is_cached=True)
    assert await stage.count("runs") == 1
    run = await stage.run(first.run_id)
    lease = await worker.lease_one()
    for read in (run, lease):
        assert (read.idempotency_key, read.idempotency_key_scope) == ("order-1", "global")


async def test_the_same_key_twice_in_one_call_means_the_first(stage: Stage) -> None:
    first, second, other = keyed(), keyed(), keyed(key="o" * 64)
    assert await trigger(stage.engine, first, second, other) == [
        Triggered(run_id=first.run_id),
        Triggered(run_id=first.run_id, is_cached=True),
        Triggered(run_id=other.run_id),
    ]


async def test_a_key_belongs_to_its_task(stage: Stage) -> None:
    answers = await trigger(stage.engine, keyed("a"), keyed("b"))
    assert [answer.is_cached for answer in answers] == [False, False]


async def test_a_key_belongs_to_its_environment(stage: Stage, dsn: str) -> None:
    other = connect(dsn, environment="prod")
    await trigger(stage.engine, keyed())
    assert [answer.is_cached for answer in await trigger(other, keyed())] == [False]
    await other.close()


async def test_a_finished_run_keeps_its_key(stage: Stage, worker: Worker) -> None:
    (first,) = await trigger(stage.engine, keyed())
    await worker.succeed(await worker.lease_one())
    assert await trigger(stage.engine, keyed()) == [Triggered(run_id=first.run_id, is_cached=True)]


async def test_a_cancelled_run_keeps_its_key(stage: Stage) -> None:
    (first,) = await trigger(stage.engine, keyed())
    await stage.engine.cancel_runs([first.run_id], "enough")
    assert await trigger(stage.engine, keyed()) == [Triggered(run_id=first.run_id, is_cached=True)]


@pytest.mark.parametrize("ending", ["fail", "time_out", "give_up"])
async def test_a_failed_run_loses_its_key(stage: Stage, worker: Worker, ending: str) -> None:
    (first,) = await trigger(stage.engine, keyed())
    await getattr(worker, ending)(await worker.lease_one())
    (second,) = await trigger(stage.engine, keyed())
    assert not second.is_cached
    assert await trigger(stage.engine, keyed()) == [Triggered(run_id=second.run_id, is_cached=True)]
    assert first.run_id != second.run_id


async def test_a_run_that_will_be_retried_keeps_its_key(stage: Stage, worker: Worker) -> None:
    (first,) = await trigger(stage.engine, keyed())
    await worker.fail(await worker.lease_one(), retry_in=SOON)
    assert await trigger(stage.engine, keyed()) == [Triggered(run_id=first.run_id, is_cached=True)]


async def test_a_key_is_free_again_after_its_time(stage: Stage, clock: Clock) -> None:
    await trigger(stage.engine, keyed(ttl=timedelta(hours=1)))
    clock.advance(timedelta(minutes=59))
    assert (await trigger(stage.engine, keyed(ttl=timedelta(hours=1))))[0].is_cached
    clock.advance(timedelta(minutes=2))
    (again,) = await trigger(stage.engine, keyed())
    assert not again.is_cached
    assert await trigger(stage.engine, keyed()) == [Triggered(run_id=again.run_id, is_cached=True)]


async def test_a_key_that_is_reset_is_free_again(stage: Stage) -> None:
    await trigger(stage.engine, keyed())
    assert await stage.engine.reset_idempotency_key("work", KEY)
    assert not await stage.engine.reset_idempotency_key("work", KEY)
    assert not (await trigger(stage.engine, keyed()))[0].is_cached


async def test_a_request_repeated_under_its_own_key_is_not_cached(stage: Stage, worker: Worker) -> None:
    wanted = keyed()
    await trigger(stage.engine, wanted)
    assert await trigger(stage.engine, wanted) == [Triggered(run_id=wanted.run_id)]
    assert await stage.count("runs") == 1


async def test_a_key_whose_run_failed_goes_to_the_next_run_even_inside_a_batch_of_requests(
    stage: Stage, worker: Worker
) -> None:
    await trigger(stage.engine, keyed())
    await worker.fail(await worker.lease_one())
    first, second = await trigger(stage.engine, keyed(), keyed())
    assert (first.is_cached, second.is_cached) == (False, True)
    assert second.run_id == first.run_id


async def test_fifty_triggers_of_one_key_at_once_make_one_run(stage: Stage, dsn: str) -> None:
    engines = [connect(dsn, size=5) for _ in range(4)]
    for round_ in range(5):
        key = str(round_) * 64
        answers = await asyncio.gather(*(trigger(engines[i % 4], keyed(key=key)) for i in range(50)))
        (winner,) = {answer.run_id for (answer,) in answers}
        assert sum(not answer.is_cached for (answer,) in answers) == 1
        assert await stage.status(winner) is RunStatus.PENDING_VERSION
    assert await stage.count("runs") == 5
    for engine in engines:
        await engine.close()


async def test_a_child_under_a_key_that_a_live_run_has_is_that_run(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    (held,) = await trigger(stage.engine, keyed())
    idempotency = keyed().idempotency
    answer = await worker.call(parent, idempotency=idempotency, wait=False)
    assert answer.triggered == Triggered(run_id=held.run_id, is_cached=True)
    (entry,) = await journal_of(stage.engine, child(parent, "0").origin.holder)
    assert (entry.ref, entry.is_cached) == (held.run_id, True)


async def test_a_stale_request_takes_no_key(stage: Stage, worker: Worker) -> None:
    """It would stand before a good request of the same call, whose run would then never be made."""
    gone, alive = [await stage.leased(worker) for _ in range(2)]
    await worker.hand_back(gone)
    idempotency = keyed().idempotency
    _, answer = await stage.engine.trigger_children(
        [child(gone, "0", idempotency=idempotency, wait=False), child(alive, "0", idempotency=idempotency)]
    )
    assert not answer.triggered.is_cached
    assert await stage.status(answer.triggered.run_id) is RunStatus.QUEUED
