"""Hints to those who wait: sent after the commit, gathered, and made good when a connection is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from detent.engine import events
from detent.engine.backend import EngineBackend, connect
from detent.protocol.wake_ups import Wake
from tests.concurrency.cutting import proxy_to
from tests.database import Clock
from tests.engine.stage import SOON, Stage, Worker, limit, registration, request, task
from tests.pooler import direct


async def heard(wakes: AsyncIterator[Wake], enough: Callable[[Wake], bool]) -> Wake:
    """Gather wake-ups until they say *enough*."""
    total = Wake()
    async with asyncio.timeout(5):
        async for wake in wakes:
            total = Wake(
                ready=total.ready + wake.ready,
                resumed=total.resumed + wake.resumed,
                cancelled=total.cancelled + wake.cancelled,
                finished=total.finished + wake.finished,
            )
            if enough(total):
                return total
    raise AssertionError


@asynccontextmanager
async def listening(stage: Stage) -> AsyncIterator[AsyncIterator[Wake]]:
    """Listen when what was done before has been announced."""
    await stage.engine._notifier.close()
    async with stage.engine.listen() as wakes:
        yield wakes


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[EngineBackend]:
    engine = connect(dsn)
    try:
        yield engine
    finally:
        await engine.close()


async def test_a_trigger_tells_how_many_runs_are_ready(stage: Stage, worker: Worker) -> None:
    async with listening(stage) as wakes:
        await stage.engine.trigger([request(), request(), request(delay=SOON)])
        assert (await heard(wakes, lambda wake: wake.ready > 0)).ready == 2


async def test_the_first_hint_leaves_with_the_trigger(fresh_dsn: str) -> None:
    """Not one round trip later, which an idle machine takes a millisecond for."""
    async with proxy_to(direct(fresh_dsn)) as proxy, opened(proxy.dsn) as engine:
        await engine.register_worker(registration("work"))
        await engine.trigger([request()])
        await engine._notifier.close()
        proxy.executed.clear()
        await engine.trigger([request()])
        assert proxy.executed == ["trigger_runs", "notify"]


async def test_hints_of_one_moment_are_gathered(stage: Stage, worker: Worker) -> None:
    async with listening(stage) as wakes:
        for _ in range(30):
            await stage.trigger()
        assert (await heard(wakes, lambda wake: wake.ready >= 30)).ready == 30


@pytest.mark.parametrize("key", [None, "acme"])
async def test_a_slot_given_back_is_told_though_nobody_has_asked_in_vain_yet(stage: Stage, key: str | None) -> None:
    worker = await stage.worker(task("work", limits=("openai",)), limits=[limit("openai", per_key=1)])
    await stage.trigger_many(3, concurrency_key=key)
    for _ in range(2):
        lease = await worker.lease_one()
        async with listening(stage) as wakes:
            await worker.succeed(lease)
            assert (await heard(wakes, lambda wake: wake.ready > 0)).ready == 1


async def test_the_holder_of_a_woken_run_is_told(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    await worker.call(parent)
    lease = await worker.lease_one()
    async with listening(stage) as wakes:
        await worker.succeed(lease)
        wake = await heard(wakes, lambda wake: bool(wake.resumed))
        assert (wake.resumed, wake.ready) == ((worker.session_id,), 0)


async def test_a_run_woken_without_a_holder_is_ready_for_anyone(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    await worker.call(parent)
    await worker.hand_back(parent)
    lease = await worker.lease_one()
    async with listening(stage) as wakes:
        await worker.succeed(lease)
        assert (await heard(wakes, lambda wake: wake.ready > 0)).resumed == ()


async def test_a_cancelled_run_is_named_to_its_worker(stage: Stage, worker: Worker) -> None:
    executing, waiting = [await stage.leased(worker) for _ in range(2)]
    await worker.sleep(waiting)
    queued = await stage.trigger()
    async with listening(stage) as wakes:
        await stage.engine.cancel_runs([executing.run_id, queued, waiting.run_id], "stop")
        wake = await heard(wakes, lambda wake: len(wake.cancelled) >= 2)
        assert set(wake.cancelled) == {executing.run_id, waiting.run_id}


async def test_the_end_of_a_watched_run_is_announced_and_of_others_not(stage: Stage, worker: Worker) -> None:
    watched, marked, plain = [await stage.leased(worker, is_watched=flag) for flag in (True, False, False)]
    await stage.engine.watch_runs([marked.run_id])
    async with listening(stage) as wakes:
        await worker.succeed(plain, watched, marked)
        wake = await heard(wakes, lambda wake: len(wake.finished) >= 2)
        assert set(wake.finished) == {watched.run_id, marked.run_id}


async def test_more_ids_than_a_notice_holds_are_sent_in_several(stage: Stage, worker: Worker) -> None:
    made = [answer.run_id for answer in await stage.engine.trigger([request(is_watched=True) for _ in range(400)])]
    async with listening(stage) as wakes:
        await stage.engine.cancel_runs(made, "all")
        assert set((await heard(wakes, lambda wake: len(wake.finished) >= 400)).finished) == set(made)


async def test_what_falls_due_is_announced(stage: Stage, worker: Worker, clock: Clock) -> None:
    lease = await stage.leased(worker)
    await worker.sleep(lease)
    await stage.trigger(delay=SOON)
    clock.advance(timedelta(hours=2))
    async with listening(stage) as wakes:
        await stage.tick()
        wake = await heard(wakes, lambda wake: wake.ready > 0 and bool(wake.resumed))
        assert (wake.ready, wake.resumed) == (1, (worker.session_id,))


async def test_runs_handed_back_are_announced(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    async with listening(stage) as wakes:
        await worker.hand_back(lease)
        await heard(wakes, lambda wake: wake.ready == 1)
    await worker.lease()
    async with listening(stage) as wakes:
        await worker.end()
        await heard(wakes, lambda wake: wake.ready == 1)


async def test_a_woken_run_that_is_handed_back_is_announced_to_the_others(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    await worker.call(parent)
    await worker.succeed(await worker.lease_one())
    async with listening(stage) as wakes:
        await worker.hand_back(parent)
        await heard(wakes, lambda wake: wake.ready == 1)


async def test_environments_do_not_wake_each_other(stage: Stage, dsn: str) -> None:
    prod = connect(dsn, environment="prod", listen_url=direct(dsn))
    async with prod.listen() as wakes:
        await stage.trigger()
        await prod.trigger([request(), request()])
        assert (await heard(wakes, lambda wake: wake.ready > 0)).ready == 2
    await prod.close()


async def test_silence_is_told_too(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUIET_SECONDS", 0.01)
    async with listening(stage) as wakes:
        assert await anext(wakes) == await anext(wakes) == Wake()


async def test_a_listener_outlives_its_connection(stage: Stage, worker: Worker) -> None:
    """What was announced meanwhile is lost; an empty wake-up says that it is time to look."""
    async with listening(stage) as wakes:
        await stage.query(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and query like 'listen %%'"
        )
        assert await anext(wakes) == Wake()
        await stage.trigger()
        assert (await heard(wakes, lambda wake: wake.ready > 0)).ready == 1


async def test_listening_begins_before_the_block_is_entered(stage: Stage, worker: Worker) -> None:
    async with listening(stage) as wakes:
        await stage.trigger()
        await stage.engine.close()
        assert (await heard(wakes, lambda wake: wake.ready > 0)).ready == 1


async def test_a_listener_in_the_same_process_may_take_care_alone(stage: Stage, worker: Worker) -> None:
    told: list[Wake] = []

    def busy(wake: Wake) -> bool:
        told.append(wake)
        return len(told) == 1

    stage.engine.hear(busy)
    async with listening(stage) as wakes:
        await stage.engine.trigger([request()])
        await stage.engine.trigger([request(), request()])
        assert (await heard(wakes, lambda wake: wake.ready > 0)).ready == 2
    assert [wake.ready for wake in told] == [1, 2]
