"""Cancelling what is just then triggered, leased, completed or woken: each run ends once, and no descendant survives."""

from __future__ import annotations

import pytest

from detent.engine.backend import EngineBackend
from detent.protocol import ids
from detent.protocol.attempts import Completed, Failed
from detent.protocol.fence import Stale
from detent.protocol.refusal import Refused
from detent.protocol.status import RunStatus
from tests.concurrency.meeting import Blockade, race
from tests.concurrency.test_waits_meet_ends import leased, succeeded
from tests.engine.stage import BOOM, SOON, Stage, Worker, child, chunk, holder, origin, time_wait

TIMES = 150


async def live(stage: Stage) -> int:
    return await stage.count("runs")


async def test_a_child_triggered_while_its_parent_is_cancelled(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    made = 0
    for i, parent in enumerate(await leased(stage, worker, TIMES)):
        trigger = engines[0].trigger_children([child(parent, "0", wait=i % 3 == 0)])
        cancel = engines[1].cancel_runs([parent.run_id], "stop")
        answers = await race(*((trigger, cancel) if i % 2 else (cancel, trigger)))
        (answer,), (is_cancelled,) = answers if i % 2 else reversed(answers)
        assert is_cancelled
        made += not isinstance(answer, Stale)
    assert await live(stage) == 0
    assert await stage.query("select status::text, count(*) from detent.history group by 1") == [
        ("CANCELED", TIMES + made)
    ]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_a_trigger_and_a_cancel_that_stand_before_the_same_parent(
    stage: Stage, worker: Worker, engines: list[EngineBackend], blockade: Blockade, order: tuple[int, int]
) -> None:
    (parent,) = await leased(stage, worker, 1)
    calls = [
        engines[0].trigger_children([child(parent, "0")]),
        engines[1].cancel_runs([parent.run_id], "stop"),
    ]
    await blockade.pile_up(
        "select from detent.runs where id = %s for update",
        [ids.decode("run", parent.run_id)],
        *(calls[i] for i in order),
    )
    assert await live(stage) == 0
    assert await stage.count("history") == (2 if order == (0, 1) else 1)


async def test_a_grandchild_triggered_while_the_root_is_cancelled(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    roots = await leased(stage, worker, TIMES)
    await stage.engine.trigger_children([child(root, "0") for root in roots])
    parents = {lease.parent_run_id: lease for lease in await worker.lease(**{"async": TIMES})}
    for i, root in enumerate(roots):
        trigger = engines[0].trigger_children([child(parents[root.run_id], "0")])
        cancel = engines[1].cancel_runs([root.run_id], "stop")
        await race(*((trigger, cancel) if i % 2 else (cancel, trigger)))
    assert await live(stage) == 0


async def test_an_item_given_while_its_batch_is_aborted(stage: Stage, engines: list[EngineBackend]) -> None:
    """Also when it is the first: an abort is never too early."""
    for i in range(TIMES):
        batch_id = ids.new_batch_id()
        if i % 4 < 2:
            await stage.engine.trigger_batch(chunk(batch_id, [0]))
        give, abort = engines[0].trigger_batch(chunk(batch_id, [1])), engines[1].abort_batch(batch_id, "it raised")
        answers = await race(*((give, abort) if i % 2 else (abort, give)))
        taken = not isinstance(answers[0 if i % 2 else 1], Refused)
        assert isinstance(await stage.engine.trigger_batch(chunk(batch_id, [2])), Refused)
        assert (await stage.engine.retrieve_runs([ids.item_run_id(batch_id, 1)]) != [None]) is taken


async def test_a_batch_sealed_while_it_is_aborted(stage: Stage, worker: Worker, engines: list[EngineBackend]) -> None:
    """Either it is sealed and the parent waits for its items, or the seal is refused and the parent goes on."""
    parents = await leased(stage, worker, TIMES)
    sealed = 0
    for i, parent in enumerate(parents):
        batch_id = ids.new_batch_id()
        await stage.engine.trigger_batch(chunk(batch_id, [0], origin=origin(parent, "0")))
        seal = engines[0].trigger_batch(chunk(batch_id, [], total=1, origin=origin(parent, "0")))
        abort = engines[1].abort_batch(batch_id, "it raised")
        answers = await race(*((seal, abort) if i % 2 else (abort, seal)))
        sealed += not isinstance(answers[0 if i % 2 else 1], Refused)
    items = await worker.lease(**{"async": TIMES})
    assert len(items) == TIMES
    await worker.succeed(*items)
    found = dict(await stage.query("select status::text, count(*) from detent.runs group by 1"))
    assert found == {k: v for k, v in {"QUEUED": sealed, "DEQUEUED": TIMES - sealed}.items() if v}


async def test_an_item_given_while_the_parent_of_its_batch_is_cancelled(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    for i, parent in enumerate(await leased(stage, worker, TIMES)):
        batch_id = ids.new_batch_id()
        await stage.engine.trigger_batch(chunk(batch_id, [0], origin=origin(parent, "0")))
        give = engines[0].trigger_batch(chunk(batch_id, [1, 2], total=3, origin=origin(parent, "0")))
        cancel = engines[1].cancel_runs([parent.run_id], "stop")
        await race(*((give, cancel) if i % 2 else (cancel, give)))
    assert await live(stage) == 0
    assert await stage.count("batch_items") == 0


async def test_an_item_that_ends_while_the_parent_of_its_batch_is_cancelled(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    parents = await leased(stage, worker, TIMES)
    batches = {parent.run_id: (await worker.batch(parent, 1))[0] for parent in parents}
    items = {lease.batch_id: lease for lease in await worker.lease(**{"async": TIMES})}
    for i, parent in enumerate(parents):
        end = engines[0].complete_attempts([succeeded(items[batches[parent.run_id]])])
        cancel = engines[1].cancel_runs([parent.run_id], "stop")
        await race(*((end, cancel) if i % 2 else (cancel, end)))
    assert await live(stage) == 0


@pytest.mark.parametrize("ending", ["success", "retry"])
async def test_an_attempt_that_ends_while_its_run_is_cancelled(
    stage: Stage, worker: Worker, engines: list[EngineBackend], ending: str
) -> None:
    """Ended once; a retry that comes first is cancelled as a queued run."""
    leases = await leased(stage, worker, TIMES)
    completed = 0
    for i, lease in enumerate(leases):
        outcome = succeeded(lease) if ending == "success" else Failed(holder=holder(lease), error=BOOM, retry_in=SOON)
        end, cancel = engines[0].complete_attempts([outcome]), engines[1].cancel_runs([lease.run_id], "stop")
        answers = await race(*((end, cancel) if i % 2 else (cancel, end)))
        (ended,), (is_cancelled,) = answers if i % 2 else reversed(answers)
        completed += ended == Completed(run_id=lease.run_id, status=RunStatus.COMPLETED)
        assert is_cancelled is not (ended == Completed(run_id=lease.run_id, status=RunStatus.COMPLETED))
    assert await live(stage) == 0
    rows = await stage.query("select count(*) filter (where status = 'COMPLETED'), count(*) from detent.history")
    assert rows == [(completed, TIMES)]
    await stage.engine.end_cancelled([holder(lease) for lease in leases])


async def test_a_run_leased_while_it_is_cancelled(stage: Stage, worker: Worker, engines: list[EngineBackend]) -> None:
    thief = Worker(engines[0], worker.session_id, worker.version)
    for i in range(TIMES):
        run_id = await stage.trigger()
        lease, cancel = thief.lease(), engines[1].cancel_runs([run_id], "stop")
        answers = await race(*((lease, cancel) if i % 2 else (cancel, lease)))
        leases, (is_cancelled,) = answers if i % 2 else reversed(answers)
        assert is_cancelled
        assert (await worker.renew(*leases)).cancelled == tuple(each.run_id for each in leases)
        await stage.engine.end_cancelled([holder(each) for each in leases])
    assert await live(stage) == 0


async def test_a_run_that_wakes_while_it_is_cancelled(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    parents = await leased(stage, worker, TIMES)
    await stage.engine.trigger_children([child(parent, "0") for parent in parents])
    children = {lease.parent_run_id: lease for lease in await worker.lease(**{"async": TIMES})}
    for i, parent in enumerate(parents):
        end = engines[0].complete_attempts([succeeded(children[parent.run_id])])
        cancel = engines[1].cancel_runs([parent.run_id], "stop")
        await race(*((end, cancel) if i % 2 else (cancel, end)))
    assert await live(stage) == 0


async def test_a_run_that_begins_to_wait_while_it_is_cancelled(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    for i, parent in enumerate(await leased(stage, worker, TIMES)):
        wait = engines[0].wait_for([time_wait(parent, "0")])
        cancel = engines[1].cancel_runs([parent.run_id], "stop")
        await race(*((wait, cancel) if i % 2 else (cancel, wait)))
    assert await live(stage) == 0


async def test_one_family_cancelled_from_several_sides(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    for _ in range(TIMES // 10):
        (root,) = await leased(stage, worker, 1)
        await stage.engine.trigger_children([child(root, str(i)) for i in range(5)])
        children = await worker.lease()
        await stage.engine.trigger_children([child(each, "0") for each in children])
        everybody = [root.run_id, *(each.run_id for each in children)]
        answers = await race(
            *(e.cancel_runs(everybody[:: 1 if i % 2 else -1], "stop") for i, e in enumerate(engines)),
        )
        assert await live(stage) == 0
        assert sum(answer[:: 1 if i % 2 else -1][0] for i, answer in enumerate(answers)) == 1
