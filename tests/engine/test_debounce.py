"""Triggers that join a run that is still delayed, and dates that move."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from detent.engine.backend import EngineBackend, connect
from detent.protocol import ids
from detent.protocol.flow import DebounceMode, Debouncing
from detent.protocol.idempotency import Idempotency
from detent.protocol.ids import RunId
from detent.protocol.refusal import Refused
from detent.protocol.runs import Rescheduling, RunRecord
from detent.protocol.status import RunStatus
from detent.protocol.triggering import Triggered
from tests.database import Clock
from tests.engine.stage import Stage, Worker, child, chunk, request

MINUTE = timedelta(minutes=1)


def debounced(key: str = "k", seconds: float = 60, **options: object) -> Debouncing:
    return Debouncing(**{"key": key, "delay": timedelta(seconds=seconds)} | options)


async def pass_time(stage: Stage, clock: Clock, seconds: float) -> None:
    clock.advance(timedelta(seconds=seconds))
    await stage.tick()


def seconds_left(clock: Clock, record: RunRecord) -> float:
    assert record.due_at is not None
    return round((record.due_at - clock.now()).total_seconds())


async def test_triggers_with_a_key_join_the_run_that_is_delayed(stage: Stage, worker: Worker, clock: Clock) -> None:
    first = await stage.trigger(debounce=debounced())
    await pass_time(stage, clock, 50)
    assert await stage.trigger(debounce=debounced()) == first
    assert await stage.trigger(debounce=debounced("other")) != first
    await pass_time(stage, clock, 50)
    assert await stage.status(first) is RunStatus.DELAYED
    await pass_time(stage, clock, 10)
    assert await stage.status(first) is RunStatus.QUEUED
    assert await stage.trigger(debounce=debounced()) != first


async def test_a_date_moves_only_forward(stage: Stage, worker: Worker, clock: Clock) -> None:
    first = await stage.trigger(debounce=debounced(seconds=100))
    assert await stage.trigger(debounce=debounced(seconds=10)) == first
    assert seconds_left(clock, await stage.run(first)) == 100


async def test_a_delay_beside_it_gives_the_first_date(stage: Stage, worker: Worker, clock: Clock) -> None:
    first = await stage.trigger(delay=timedelta(seconds=300), debounce=debounced(seconds=10))
    assert seconds_left(clock, await stage.run(first)) == 300


async def test_a_leading_run_keeps_what_it_was_first_given(stage: Stage, worker: Worker) -> None:
    first = await stage.trigger(payload='"first"', tags=("a",), debounce=debounced())
    await stage.trigger(payload='"second"', tags=("b",), debounce=debounced())
    record = await stage.run(first)
    assert (record.payload, record.tags) == ('"first"', ("a",))


async def test_a_trailing_run_takes_what_it_was_last_given(stage: Stage, worker: Worker) -> None:
    trailing = debounced(mode=DebounceMode.TRAILING)
    first = await stage.trigger(payload='"first"', tags=("a",), metadata="{}", max_attempts=2, debounce=trailing)
    await stage.trigger(
        payload='"second"', tags=("b",), max_attempts=7, max_duration=9.0, priority=50.0, ttl=5.0, debounce=trailing
    )
    record = await stage.run(first)
    assert (record.payload, record.tags, record.metadata) == ('"second"', ("b",), "{}")
    assert (record.max_attempts, record.max_duration, record.priority, record.ttl) == (7, 9.0, 0.0, None)


async def test_beyond_its_longest_delay_a_run_keeps_its_date_and_another_is_made(
    stage: Stage, worker: Worker, clock: Clock
) -> None:
    bounded = debounced(seconds=60, max_delay=timedelta(seconds=100))
    first = await stage.trigger(debounce=bounded)
    await pass_time(stage, clock, 30)
    assert await stage.trigger(debounce=bounded) == first
    await pass_time(stage, clock, 30)
    second = await stage.trigger(debounce=bounded)
    assert second != first
    assert seconds_left(clock, await stage.run(first)) == 30
    assert await stage.trigger(debounce=bounded) == second


@pytest.mark.parametrize("end", ["cancel", "lease"])
async def test_a_run_that_is_not_delayed_any_more_is_joined_by_nobody(
    stage: Stage, worker: Worker, clock: Clock, end: str
) -> None:
    first = await stage.trigger(debounce=debounced())
    if end == "cancel":
        await stage.engine.cancel_runs([first], "enough")
    else:
        await pass_time(stage, clock, 60)
        await worker.lease_one()
    assert await stage.trigger(debounce=debounced()) != first


async def test_another_task_has_keys_of_its_own(stage: Stage) -> None:
    await stage.worker("work", "other")
    assert await stage.trigger(debounce=debounced()) != await stage.trigger("other", debounce=debounced())


async def test_an_idempotency_key_goes_first(stage: Stage, worker: Worker, clock: Clock) -> None:
    key = Idempotency(key="a" * 64, user_key="a", scope="global")
    first = await stage.trigger(debounce=debounced(), idempotency=key)
    await pass_time(stage, clock, 30)
    assert await stage.trigger(debounce=debounced(), idempotency=key) == first
    assert seconds_left(clock, await stage.run(first)) == 30
    await pass_time(stage, clock, 30)
    assert await stage.trigger(debounce=debounced(), idempotency=key) == first


async def test_an_idempotency_key_of_a_trigger_that_joins_stands_for_the_run_it_joins(
    stage: Stage, worker: Worker, clock: Clock
) -> None:
    first = await stage.trigger(debounce=debounced())
    key = Idempotency(key="a" * 64, user_key="a", scope="global")
    assert await stage.trigger(debounce=debounced(), idempotency=key) == first
    await pass_time(stage, clock, 60)
    await worker.succeed(*await worker.lease())
    assert await stage.trigger(debounce=debounced(), idempotency=key) == first


async def test_two_parents_wait_for_one_debounced_child(stage: Stage, worker: Worker, clock: Clock) -> None:
    one, two = [await stage.leased(worker) for _ in range(2)]
    answers = [await worker.call(parent, debounce=debounced()) for parent in (one, two)]
    made = {answer.triggered.run_id for answer in answers}  # type: ignore[union-attr]
    assert len(made) == 1
    await pass_time(stage, clock, 60)
    lease = await worker.lease_one()
    assert {lease.run_id} == made
    await worker.succeed(lease)
    assert {resumed.run_id for resumed in await worker.lease()} == {one.run_id, two.run_id}


async def test_a_parent_waits_for_a_debounced_run_that_nobody_waited_for(
    stage: Stage, worker: Worker, clock: Clock
) -> None:
    parent = await stage.leased(worker)
    first = await stage.trigger(debounce=debounced())
    await worker.call(parent, debounce=debounced())
    await pass_time(stage, clock, 60)
    lease = await worker.lease_one()
    assert lease.run_id == first
    await worker.succeed(lease)
    assert [resumed.run_id for resumed in await worker.lease()] == [parent.run_id]


async def test_parents_that_ask_together_wait_for_one_child(stage: Stage, worker: Worker, clock: Clock) -> None:
    parents = [await stage.leased(worker) for _ in range(3)]
    answers = await stage.engine.trigger_children([child(parent, "0", debounce=debounced()) for parent in parents])
    assert len({answer.triggered.run_id for answer in answers}) == 1  # type: ignore[union-attr]
    await pass_time(stage, clock, 60)
    await worker.succeed(await worker.lease_one())
    assert len(await worker.lease()) == 3


async def test_items_of_a_batch_with_one_key_are_one_run(stage: Stage, worker: Worker, clock: Clock) -> None:
    parent = await stage.leased(worker)
    batch_id, taken = await worker.batch(parent, 3, debounce=debounced())
    assert len({item.run_id for item in taken.items if isinstance(item, Triggered)}) == 1
    await pass_time(stage, clock, 60)
    await worker.succeed(await worker.lease_one())
    assert (await worker.lease_one()).run_id == parent.run_id
    assert len(await stage.engine.read_batch_results(batch_id)) == 3


async def test_requests_of_one_call_with_one_key_are_one_run(stage: Stage, worker: Worker) -> None:
    answers = await stage.engine.trigger([request(debounce=debounced(f"k{i % 2}")) for i in range(6)])
    assert [isinstance(answer, Triggered) and answer.is_cached for answer in answers] == [False, False, *[True] * 4]
    assert await stage.count("runs") == 2


async def test_the_last_request_of_a_call_trails(stage: Stage, worker: Worker, clock: Clock) -> None:
    modes = [debounced(seconds=seconds, mode=DebounceMode.TRAILING) for seconds in (60, 90, 30)]
    wanted = [request(payload=f"{i}", debounce=mode) for i, mode in enumerate(modes)]
    await stage.engine.trigger(wanted)
    record = await stage.run(wanted[0].run_id)
    assert (record.payload, seconds_left(clock, record)) == ("2", 90)


async def test_a_repeated_request_joins_its_own_run(stage: Stage, worker: Worker) -> None:
    wanted = request(debounce=debounced())
    for _ in range(2):
        (answer,) = await stage.engine.trigger([wanted], is_repeat=True)
        assert isinstance(answer, Triggered)
        assert answer.run_id == wanted.run_id
    assert await stage.count("runs") == 1


async def test_a_lone_batch_is_debounced_item_by_item(stage: Stage, worker: Worker) -> None:
    await stage.engine.trigger_batch(chunk(ids.new_batch_id(), range(4), total=4, debounce=debounced()))
    assert await stage.count("runs") == 1


# ---- dates that move


async def test_a_delayed_run_may_be_moved_to_an_earlier_or_a_later_date(
    stage: Stage, worker: Worker, clock: Clock
) -> None:
    run_id = await stage.trigger(delay=MINUTE)
    for seconds in (600, 10):
        (record,) = await stage.engine.reschedule_runs([Rescheduling(run_id=run_id, delay=timedelta(seconds=seconds))])
        assert isinstance(record, RunRecord)
        assert seconds_left(clock, record) == seconds
    await pass_time(stage, clock, 10)
    assert (await worker.lease_one()).run_id == run_id


async def test_a_moved_run_stands_at_its_new_date(stage: Stage, worker: Worker, clock: Clock) -> None:
    moved, other = await stage.trigger(delay=MINUTE), await stage.trigger(delay=2 * MINUTE)
    await stage.engine.reschedule_runs([Rescheduling(run_id=moved, delay=3 * MINUTE)])
    await pass_time(stage, clock, 180)
    assert [lease.run_id for lease in await worker.lease()] == [other, moved]


async def test_only_a_delayed_run_may_be_moved(stage: Stage, worker: Worker) -> None:
    run_id = await stage.trigger()
    refused, unknown = await stage.engine.reschedule_runs(
        [Rescheduling(run_id=each, delay=MINUTE) for each in (run_id, RunId(ids.new_run_id()))]
    )
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code, unknown) == (422, "run_not_delayed", None)


async def test_a_run_moved_meanwhile_is_left_alone_by_the_ticker(stage: Stage, worker: Worker, clock: Clock) -> None:
    run_id = await stage.trigger(delay=MINUTE)
    clock.advance(MINUTE)
    await stage.engine.reschedule_runs([Rescheduling(run_id=run_id, delay=MINUTE)])
    await stage.tick()
    assert await stage.status(run_id) is RunStatus.DELAYED


async def test_concurrent_triggers_make_one_run(stage: Stage, worker: Worker, dsn: str) -> None:
    engines: list[EngineBackend] = [connect(dsn, size=1) for _ in range(4)]
    for i in range(10):
        answers = await asyncio.gather(
            *(e.trigger([request(debounce=debounced(f"k{i}"))]) for e in engines for _ in range(3))
        )
        made = {answer.run_id for (answer,) in answers if isinstance(answer, Triggered)}
        assert len(made) == 1
    for engine in engines:
        await engine.close()
    assert await stage.count("runs") == 10
