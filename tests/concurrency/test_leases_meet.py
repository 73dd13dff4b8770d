"""Leasing, renewing, ending, registering at the same moment."""

from __future__ import annotations

import pytest

from detent.engine.backend import EngineBackend
from detent.protocol import ids
from detent.protocol.idempotency import Idempotency
from detent.protocol.sessions import SessionEnd
from detent.protocol.status import RunStatus
from tests.concurrency.meeting import Blockade, race
from tests.concurrency.test_waits_meet_ends import leased, succeeded
from tests.engine.stage import Stage, Worker, child, registration, request, task

TIMES = 120


async def test_many_lease_at_once_and_each_run_goes_to_one(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    workers = [Worker(engine, (await stage.session(worker.version)).session_id, worker.version) for engine in engines]
    for _ in range(20):
        made = [answer.run_id for answer in await stage.engine.trigger([request() for _ in range(100)])]
        taken = []
        while len(taken) < 100:
            for leases in await race(*(each.lease(**{"async": 30}) for each in workers)):
                taken += leases
        assert sorted(lease.run_id for lease in taken) == made
        await worker.succeed(*taken)


async def test_a_session_that_ends_while_it_leases(stage: Stage, worker: Worker, engines: list[EngineBackend]) -> None:
    """What it was given is handed back, or it was given nothing: no run stays with the dead."""
    for i in range(TIMES):
        run_id = await stage.trigger()
        doomed = await stage.session(worker.version)
        lease = Worker(engines[0], doomed.session_id, doomed.version).lease()
        end = engines[1].end_session(SessionEnd(session_id=doomed.session_id, is_lost=True))
        await race(*((lease, end) if i % 2 else (end, lease)))
        assert await stage.status(run_id) is RunStatus.QUEUED
        await worker.succeed(await worker.lease_one())


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_a_lease_and_an_end_that_stand_before_the_same_session(
    stage: Stage, worker: Worker, engines: list[EngineBackend], blockade: Blockade, order: tuple[int, int]
) -> None:
    run_id = await stage.trigger()
    calls = [
        Worker(engines[0], worker.session_id, worker.version).lease(),
        engines[1].end_session(SessionEnd(session_id=worker.session_id, is_lost=True)),
    ]
    await blockade.pile_up(
        "select from detent.sessions where id = %s for update",
        [ids.decode("session", worker.session_id)],
        *(calls[i] for i in order),
    )
    assert await stage.status(run_id) is RunStatus.QUEUED
    assert (await stage.run(run_id)).losses == (1 if order == (0, 1) else 0)


async def test_a_completion_while_the_session_is_ended_by_others(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    """Completed once, or handed back and to be completed by another: never both, never neither."""
    completed = 0
    for i in range(TIMES):
        await stage.trigger()
        doomed = await stage.session(worker.version)
        lease = await doomed.lease_one()
        complete = engines[0].complete_attempts([succeeded(lease)])
        end = engines[1].end_session(SessionEnd(session_id=doomed.session_id, is_lost=True))
        await race(*((complete, end) if i % 2 else (end, complete)))
        again = await worker.lease()
        await worker.succeed(*again)
        completed += not again
        assert await stage.status(lease.run_id) is RunStatus.COMPLETED
    assert await stage.count("history") == TIMES


async def test_two_end_one_session(stage: Stage, worker: Worker, engines: list[EngineBackend]) -> None:
    for _ in range(TIMES // 4):
        doomed = await stage.session(worker.version)
        await stage.trigger()
        await doomed.lease()
        end = SessionEnd(session_id=doomed.session_id, is_lost=True)
        ended = await race(*(engine.end_session(end) for engine in engines))
        assert sum(each.returned for each in ended) == 1
        await worker.succeed(await worker.lease_one())


async def test_a_renewal_that_crosses_a_lease_takes_nothing_away(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    for i in range(TIMES):
        await stage.trigger()
        lease = Worker(engines[0], worker.session_id, worker.version).lease()
        renew = Worker(engines[1], worker.session_id, worker.version).renew()
        answers = await race(*((lease, renew) if i % 2 else (renew, lease)))
        leases = answers[0 if i % 2 else 1]
        (done,) = await worker.succeed(*leases)
        assert done.status is RunStatus.COMPLETED


async def test_a_renewal_that_hands_back_a_woken_run_while_another_leases_it(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    """They meet crosswise over the ready queue: the one holds its row, the other the run's."""
    other = await stage.session(worker.version)
    thief = Worker(engines[1], other.session_id, other.version)
    for i in range(TIMES):
        (parent,) = await leased(stage, worker, 1)
        await worker.call(parent)
        await worker.succeed(await worker.lease_one())
        await stage.query(
            "with old as (update detent.runs set leased_at = leased_at - interval '1 h') "
            "update detent.ready set resident_until = clock_timestamp() - interval '1 s'"
        )
        forget, lease = Worker(engines[0], worker.session_id, worker.version).renew(), thief.lease()
        answers = await race(*((forget, lease) if i % 2 else (lease, forget)))
        leases = answers[1 if i % 2 else 0] or await thief.lease()
        (done,) = await worker.succeed(*leases)
        assert done.status is RunStatus.COMPLETED


async def test_a_task_registered_while_it_is_triggered(stage: Stage, engines: list[EngineBackend]) -> None:
    for i in range(TIMES // 4):
        task_id = f"task{i}"
        register = engines[0].register_worker(registration(task_id))
        trigger = engines[1].trigger([request(task_id)])
        answers = await race(*((register, trigger) if i % 2 else (trigger, register)))
        session = await stage.session(answers[0 if i % 2 else 1])
        assert [lease.task_id for lease in await session.lease()] == [task_id]


async def test_workers_that_register_the_same_tasks_at_once_are_one_version(
    stage: Stage, engines: list[EngineBackend]
) -> None:
    for i in range(20):
        names = await race(*(engine.register_worker(registration(f"a{i}", f"b{i}")) for engine in engines))
        assert len(set(names)) == 1
    assert await stage.count("versions") == 20


async def test_workers_that_register_different_tasks_at_once_are_so_many_versions(
    stage: Stage, engines: list[EngineBackend]
) -> None:
    for i in range(20):
        names = await race(*(e.register_worker(registration(f"{n}-{i}")) for n, e in enumerate(engines)))
        assert len(set(names)) == 4


async def test_one_name_registered_with_different_tasks_at_once_means_one_of_them(
    stage: Stage, engines: list[EngineBackend]
) -> None:
    for i in range(10):
        await race(*(e.register_worker(registration(task(f"{n}-{i}"), version=f"v{i}")) for n, e in enumerate(engines)))
        assert await stage.query("select count(*) from detent.versions where name = %s", f"v{i}") == [(1,)]


async def test_a_key_wanted_by_many_while_its_run_fails(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    """All get the failed run, or all that come later one and the same new run."""
    for i in range(TIMES // 4):
        key = Idempotency(key=f"{i:064}", user_key="k", scope="global")
        (failing,) = await leased(stage, worker, 1, idempotency=key)
        wanted = [engine.trigger([request(idempotency=key) for _ in range(3)]) for engine in engines[:3]]
        *answers, _ = await race(*wanted, Worker(engines[3], worker.session_id, worker.version).fail(failing))
        new = {answer.run_id for group in answers for answer in group} - {failing.run_id}
        assert len(new) <= 1
        assert sum(not answer.is_cached for group in answers for answer in group) == len(new)
        await worker.succeed(*await worker.lease())


async def test_a_wait_by_key_for_a_run_that_many_want(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    key = Idempotency(key="w" * 64, user_key="k", scope="global")
    parents = await leased(stage, worker, 40)
    await race(*(engines[i % 4].trigger_children([child(p, "0", idempotency=key)]) for i, p in enumerate(parents)))
    (shared,) = await worker.lease()
    await worker.succeed(shared)
    assert len(await worker.lease()) == 40
