"""A wake-up is never lost: waiters and completers of the same thing at the same moment."""

from __future__ import annotations

from datetime import timedelta

import pytest

from detent.engine.backend import EngineBackend
from detent.protocol import ids
from detent.protocol.attempts import Failed, Succeeded
from detent.protocol.idempotency import Idempotency
from detent.protocol.leases import Lease
from detent.protocol.operations import Origin
from detent.protocol.status import RunStatus
from detent.protocol.waits import Pending, Suspended, TimeWait, WaitResult
from tests.concurrency.meeting import Blockade, race
from tests.engine.stage import BOOM, Stage, Worker, child, chunk, holder, origin, request, time_wait

TIMES = 250


def key(i: int) -> Idempotency:
    return Idempotency(key=f"{i:064}", user_key="k", scope="global")


def succeeded(lease: Lease) -> Succeeded:
    return Succeeded(holder=holder(lease), output='"done"')


async def leased(stage: Stage, worker: Worker, count: int, **options: object) -> list[Lease]:
    made = await stage.engine.trigger([request(**options) for _ in range(count)])
    leases = {lease.run_id: lease for lease in await worker.lease(**{"async": count})}
    return [leases[answer.run_id] for answer in made]


async def statuses(stage: Stage, leases: list[Lease]) -> set[str]:
    rows = await stage.query(
        "select distinct status::text from detent.runs where id = any(%s)",
        [ids.decode("run", x.run_id) for x in leases],
    )
    return {status for (status,) in rows}


async def test_two_completers_of_one_runs_two_waits(stage: Stage, worker: Worker, engines: list[EngineBackend]) -> None:
    parents = await leased(stage, worker, TIMES)
    calls = [child(parent, operation) for parent in parents for operation in "01"]
    answers = await stage.engine.trigger_children(calls)
    children = {lease.run_id: lease for lease in await worker.lease(**{"async": 2 * TIMES})}
    for first, second in zip(answers[::2], answers[1::2], strict=True):
        await race(
            *(
                engine.complete_attempts([succeeded(children[answer.triggered.run_id])])
                for engine, answer in zip(engines, (first, second), strict=False)
            )
        )
    assert await statuses(stage, parents) == {"QUEUED"}
    resumed = await worker.lease(**{"async": TIMES})
    assert {len(lease.results) for lease in resumed} == {2}
    await worker.succeed(*resumed)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_two_completers_that_stand_before_the_same_parent(
    stage: Stage, worker: Worker, engines: list[EngineBackend], blockade: Blockade, order: tuple[int, int]
) -> None:
    (parent,) = await leased(stage, worker, 1)
    await stage.engine.trigger_children([child(parent, operation) for operation in "01"])
    children = await worker.lease()
    await blockade.pile_up(
        "select from detent.runs where id = %s for update",
        [ids.decode("run", parent.run_id)],
        *(engines[i].complete_attempts([succeeded(children[i])]) for i in order),
    )
    (resumed,) = await worker.lease()
    assert len(resumed.results) == 2


async def test_four_completers_of_one_batchs_items(stage: Stage, worker: Worker, engines: list[EngineBackend]) -> None:
    for _ in range(TIMES // 10):
        (parent,) = await leased(stage, worker, 1)
        batch_id, _ = await worker.batch(parent, 12)
        items = await worker.lease()
        outcomes = [succeeded(item) for item in items]
        await race(*(engine.complete_attempts(outcomes[i::4]) for i, engine in enumerate(engines)))
        (resumed,) = await worker.lease()
        assert len(await stage.engine.read_batch_results(batch_id)) == 12
        await worker.succeed(resumed)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_two_completers_that_stand_before_the_same_batch(
    stage: Stage, worker: Worker, engines: list[EngineBackend], blockade: Blockade, order: tuple[int, int]
) -> None:
    (parent,) = await leased(stage, worker, 1)
    batch_id, _ = await worker.batch(parent, 2)
    items = await worker.lease()
    await blockade.pile_up(
        "select from detent.batches where id = %s for update",
        [ids.decode("batch", batch_id)],
        *(engines[i].complete_attempts([succeeded(items[i])]) for i in order),
    )
    assert await stage.status(parent.run_id) is RunStatus.QUEUED


async def test_a_child_that_ends_while_a_second_parent_begins_to_wait_for_it(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    """By its key; the first parent made it, so it is awaited already."""
    firsts, seconds = await leased(stage, worker, TIMES), await leased(stage, worker, TIMES)
    await stage.engine.trigger_children([child(parent, "0", idempotency=key(i)) for i, parent in enumerate(firsts)])
    children = {lease.parent_run_id: lease for lease in await worker.lease(**{"async": TIMES})}
    at_once = 0
    for i, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        waiting = engines[0].trigger_children([child(second, "0", idempotency=key(i))])
        ending = engines[1].complete_attempts([succeeded(children[first.run_id])])
        answers = await race(*((waiting, ending) if i % 2 else (ending, waiting)))
        (answer,) = answers[0 if i % 2 else 1]
        at_once += answer.wait != Suspended()
    assert await stage.query("select status::text, count(*) from detent.runs group by 1 order by 1") == (
        [("DEQUEUED", at_once), ("QUEUED", 2 * TIMES - at_once)] if at_once else [("QUEUED", 2 * TIMES)]
    )


@pytest.mark.parametrize("is_awaited", [False, True])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_a_wait_and_an_end_that_stand_before_the_same_child(
    stage: Stage,
    worker: Worker,
    engines: list[EngineBackend],
    blockade: Blockade,
    order: tuple[int, int],
    is_awaited: bool,
) -> None:
    (shared,) = await leased(stage, worker, 1, idempotency=key(0))
    other, parent = await leased(stage, worker, 2)
    if is_awaited:
        batch = chunk(ids.new_batch_id(), [0], total=1, origin=origin(other, "0"), idempotency=key(0))
        await stage.engine.trigger_batch(batch)
    calls = [
        engines[0].trigger_children([child(parent, "0", idempotency=key(0))]),
        engines[1].complete_attempts([succeeded(shared)]),
    ]
    await blockade.pile_up(
        "select from detent.runs where id = %s for update",
        [ids.decode("run", shared.run_id)],
        *(calls[i] for i in order),
    )
    assert await stage.status(parent.run_id) is (RunStatus.QUEUED if order == (0, 1) else RunStatus.DEQUEUED)


async def test_the_last_item_of_a_batch_ends_while_the_batch_is_sealed(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    parents = await leased(stage, worker, TIMES)
    batches = [ids.new_batch_id() for _ in parents]
    for batch_id, parent in zip(batches, parents, strict=True):
        await stage.engine.trigger_batch(chunk(batch_id, [0], origin=origin(parent, "0")))
    items = {lease.batch_id: lease for lease in await worker.lease(**{"async": TIMES})}
    completed = 0
    for i, (batch_id, parent) in enumerate(zip(batches, parents, strict=True)):
        seal = engines[0].trigger_batch(chunk(batch_id, [], total=1, origin=origin(parent, "0")))
        end = engines[1].complete_attempts([succeeded(items[batch_id])])
        answers = await race(*((seal, end) if i % 2 else (end, seal)))
        completed += isinstance(answers[0 if i % 2 else 1].wait, WaitResult)
    found = dict(await stage.query("select status::text, count(*) from detent.runs group by 1"))
    assert found == {k: v for k, v in {"DEQUEUED": completed, "QUEUED": TIMES - completed}.items() if v}


async def test_a_run_that_answers_an_item_by_its_key_ends_while_the_item_is_given(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    parents = await leased(stage, worker, TIMES)
    made = await stage.engine.trigger([request(idempotency=key(i)) for i in range(TIMES)])
    shared = {lease.run_id: lease for lease in await worker.lease(**{"async": TIMES})}
    for i, parent in enumerate(parents):
        whole = chunk(ids.new_batch_id(), [0], total=1, origin=origin(parent, "0"), idempotency=key(i))
        calls = engines[0].trigger_batch(whole), engines[1].complete_attempts([succeeded(shared[made[i].run_id])])
        await race(*(calls if i % 2 else reversed(calls)))
    assert "WAITING" not in await statuses(stage, parents)
    assert await stage.count("history") == TIMES


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_an_item_and_the_parent_that_gave_up_its_batch_end_together(
    stage: Stage, worker: Worker, engines: list[EngineBackend], blockade: Blockade, order: tuple[int, int]
) -> None:
    """The batch goes with its parent, and no result is left of the item."""
    (parent,) = await leased(stage, worker, 1)
    batch_id = ids.new_batch_id()
    await stage.engine.trigger_batch(chunk(batch_id, [0], origin=origin(parent, "0")))
    (item,) = await worker.lease()
    calls = [engines[i].complete_attempts([succeeded(lease)]) for i, lease in enumerate((parent, item))]
    await blockade.pile_up(
        "select from detent.batches where id = %s for update",
        [ids.decode("batch", batch_id)],
        *(calls[i] for i in order),
    )
    assert [await stage.count(table) for table in ("runs", "batch_items")] == [0, 0]


@pytest.mark.parametrize("is_awaited", [False, True])
async def test_a_run_that_answers_an_item_ends_before_the_batch_is_committed(
    stage: Stage, worker: Worker, engines: list[EngineBackend], blockade: Blockade, is_awaited: bool
) -> None:
    """The batch is held up at its waitpoint, when it has looked at the run already."""
    (shared,) = await leased(stage, worker, 1, idempotency=key(0))
    other, parent = await leased(stage, worker, 2)
    if is_awaited:
        await stage.engine.trigger_children([child(other, "0", idempotency=key(0))])
    batch_id = ids.new_batch_id()
    whole = chunk(batch_id, [0], total=1, origin=origin(parent, "0"), idempotency=key(0))
    await blockade.pile_up(
        "insert into detent.waitpoints (id, environment_id, kind) values (%s, 1, 'batch')",
        [ids.decode("batch", batch_id)],
        engines[0].trigger_batch(whole),
        engines[1].complete_attempts([succeeded(shared)]),
    )
    assert await stage.status(parent.run_id) is RunStatus.QUEUED


async def test_a_moment_comes_while_a_run_begins_to_wait_for_it(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    parents = await leased(stage, worker, TIMES)
    for parent in parents:
        wait = time_wait(parent, "0", timedelta(microseconds=300))
        await race(engines[0].wait_for([wait]), engines[1].maintenance.tick(), engines[2].maintenance.tick())
    await stage.a_moment_passes()
    assert "WAITING" not in await statuses(stage, parents)


async def test_a_woken_run_waits_for_more_while_another_worker_takes_it(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    """Either the wait comes first, and nobody gets the run before it is over; or the lease does, and the wait is stale."""
    parents = await leased(stage, worker, TIMES)
    other = await stage.session(worker.version)
    thief = Worker(engines[1], other.session_id, other.version)
    await stage.engine.trigger_children([child(parent, "0") for parent in parents])
    children = {lease.parent_run_id: lease for lease in await worker.lease(**{"async": TIMES})}
    taken = 0
    for i, parent in enumerate(parents):
        await worker.succeed(children[parent.run_id])
        await stage.query("update detent.ready set resident_until = clock_timestamp() - interval '1 s'")
        wait, lease = engines[0].wait_for([time_wait(parent, "1")]), thief.lease()
        answers = await race(*((wait, lease) if i % 2 else (lease, wait)))
        (answer,), leases = answers if i % 2 else reversed(answers)
        assert (answer == Suspended()) is (leases == [])
        taken += len(leases)
        assert all(len(each.results) == 1 for each in leases)
    found = dict(await stage.query("select status::text, count(*) from detent.runs group by 1"))
    assert found == {k: v for k, v in {"DEQUEUED": taken, "WAITING": TIMES - taken}.items() if v}


async def test_what_comes_while_a_run_is_leased_for_something_else_comes_with_that_lease(
    stage: Stage, worker: Worker, engines: list[EngineBackend], blockade: Blockade
) -> None:
    """The lease stands still after its first look, and sees what came since: nobody would tell the session of that."""
    (parent,) = await leased(stage, worker, 1)
    await stage.engine.trigger_children([child(parent, operation) for operation in "01"])
    children = {lease.run_id: lease for lease in await worker.lease()}
    first, second = sorted(children)
    await worker.succeed(children[first], output="1")
    taken: list[Lease] = []

    async def lease() -> None:
        taken.extend(await Worker(engines[0], worker.session_id, worker.version).lease())

    async def complete() -> None:
        await engines[1].complete_attempts([succeeded(children[second])])

    await blockade.pile_up("select from detent.sessions for update", [], lease(), complete())
    (resumed,) = taken
    assert [result.child.output for result in resumed.results if result.child] == ["1", '"done"']
    assert await stage.count("waits") == 0


async def test_a_run_that_fails_while_it_begins_to_wait_takes_no_wait_into_its_next_attempt(
    stage: Stage, worker: Worker, engines: list[EngineBackend], blockade: Blockade
) -> None:
    (lease,) = await leased(stage, worker, 1)
    place = Origin(holder=holder(lease), operation="0", wait=True, suspends=False)
    wait = TimeWait(origin=place, until=timedelta(hours=1), waitpoint_id=ids.new_waitpoint_id())

    async def ask() -> None:
        assert await engines[0].wait_for([wait]) == [Pending()]

    async def fail() -> None:
        failed = Failed(holder=holder(lease), error=BOOM, retry_in=timedelta(0))
        await engines[1].complete_attempts([failed])

    await blockade.pile_up("select from detent.runs for update", [], ask(), fail())
    assert (await stage.run(lease.run_id)).attempt == 2
    assert await stage.count("waits") == 0
