"""Batches that several processes give, seal, abort and finish at the same moment."""

from __future__ import annotations

import asyncio

import pytest

from detent.engine.backend import EngineBackend
from detent.protocol import ids
from detent.protocol.batches import BatchCreated, BatchCreation, ChunkTaken
from detent.protocol.idempotency import Idempotency
from detent.protocol.refusal import Refused
from detent.protocol.status import RunStatus
from tests.concurrency.meeting import Blockade, race
from tests.engine.invariants import broken_rules
from tests.engine.stage import Stage, Worker, chunk, origin

TIMES = 20
KEY = Idempotency(key="k" * 64, user_key="k", scope="global")


async def test_a_batch_that_two_processes_give_has_each_item_once(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    for _ in range(TIMES):
        parent = await stage.leased(worker)
        batch_id = ids.new_batch_id()
        await stage.engine.create_batch(BatchCreation(batch_id=batch_id, count=6, origin=origin(parent, "0")))
        answers = await race(
            *(engine.trigger_batch(chunk(batch_id, part)) for engine, part in zip(
                engines, ([0, 1, 2], [2, 1, 3], [4, 5, 0], [5, 3, 4]), strict=True))
        )  # fmt: skip
        assert sum(answer.accepted for answer in answers) == 6
        await worker.succeed(*await worker.lease())
        resumed = await worker.lease_one()
        assert [result.error for result in resumed.results] == [None]
        await worker.succeed(resumed)
        assert await broken_rules(stage.connection) == {}


async def test_a_batch_sealed_by_two_processes_at_once_wakes_its_run_once(
    stage: Stage, worker: Worker, engines: list[EngineBackend], blockade: Blockade
) -> None:
    parent = await stage.leased(worker)
    batch_id = ids.new_batch_id()
    whole = chunk(batch_id, [0, 1], total=2, origin=origin(parent, "0"))
    sealing = [engine.trigger_batch(whole) for engine in engines[:2]]
    await stage.engine.trigger_batch(chunk(batch_id, [], origin=origin(parent, "0")))
    await blockade.pile_up(
        "select from detent.batches where id = %s for update", [ids.decode("batch", batch_id)], *sealing
    )
    await worker.succeed(*await worker.lease())
    (resumed,) = await worker.lease()
    assert [result.operation for result in resumed.results] == ["0"]
    assert await worker.lease() == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_a_batch_is_sealed_or_aborted_and_who_waits_wakes(
    stage: Stage, worker: Worker, engines: list[EngineBackend], blockade: Blockade, order: tuple[int, int]
) -> None:
    parent = await stage.leased(worker)
    batch_id = ids.new_batch_id()
    await stage.engine.create_batch(BatchCreation(batch_id=batch_id, count=1, origin=origin(parent, "0")))
    calls = [engines[0].trigger_batch(chunk(batch_id, [0])), engines[1].abort_batch(batch_id, "it raised")]
    await blockade.pile_up(
        "select from detent.batches where id = %s for update",
        [ids.decode("batch", batch_id)],
        *(calls[i] for i in order),
    )
    leases = {lease.run_id: lease for lease in await worker.lease()}
    if parent.run_id not in leases:
        await worker.succeed(*leases.values())
        leases = {lease.run_id: lease for lease in await worker.lease()}
    assert leases[parent.run_id].results[0].operation == "0"
    assert await broken_rules(stage.connection) == {}


async def test_of_two_batches_with_one_key_one_is_made(stage: Stage, engines: list[EngineBackend]) -> None:
    creations = [BatchCreation(batch_id=ids.new_batch_id(), count=1, key=KEY) for _ in engines]
    made: list[BatchCreated] = await race(
        *(engine.create_batch(creation) for engine, creation in zip(engines, creations, strict=True))
    )
    assert len({answer.batch_id for answer in made}) == 1
    assert [answer.is_cached for answer in made].count(False) == 1
    assert await stage.count("batches") == 1


async def test_items_given_from_outside_while_their_parent_is_cancelled_leave_no_orphan(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    for _ in range(TIMES):
        parent = await stage.leased(worker)
        batch_id = ids.new_batch_id()
        await stage.engine.create_batch(BatchCreation(batch_id=batch_id, count=2, origin=origin(parent, "0")))
        giving, _ = await race(
            engines[0].trigger_batch(chunk(batch_id, [0, 1])), engines[1].cancel_runs([parent.run_id], "stop")
        )
        assert isinstance(giving, ChunkTaken | Refused)
        assert await stage.count("runs") == 0
        assert await stage.status(parent.run_id) is RunStatus.CANCELED


async def test_two_deadlines_abort_a_batch_once(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    parent = await stage.leased(worker)
    creation = BatchCreation(batch_id=ids.new_batch_id(), count=2, origin=origin(parent, "0"))
    await stage.engine.create_batch(creation)
    await stage.query("update testing.clock set shift = shift + interval '1 hour'")
    tickers = [engine.maintenance for engine in engines]
    await asyncio.gather(*(ticker.carry_on() for ticker in tickers))
    await asyncio.gather(*(ticker.close() for ticker in tickers))
    (resumed,) = await worker.lease()
    assert [result.operation for result in resumed.results] == ["0"]
