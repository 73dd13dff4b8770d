"""Queues, limits and dates on a real database, from outside a run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from detent import (
    BadRequestError,
    Client,
    Concurrency,
    Debounce,
    NotFoundError,
    RateLimit,
    RateLimitError,
    RunStatus,
    UnprocessableEntityError,
    concurrency_limit,
    concurrency_limits,
    queue,
    queues,
    runs,
    task,
    tasks,
)
from detent.engine.backend import EngineBackend
from detent.protocol.ids import new_run_id
from detent.worker.registration import registration_of
from detent.worker.settings import WorkerSettings


@pytest.fixture
async def charge(engine: EngineBackend) -> Any:
    """A task with an inline and a named limit in a queue of its own kind, known to the database."""
    openai = concurrency_limit("openai", total=25, rate=RateLimit(500, "1m"))

    @task(queue=queue("cards", concurrency_limit=5), concurrency=[Concurrency(per_key=1), openai], ttl="1h")
    async def charge(amount: int) -> None: ...

    await engine.register_worker(registration_of(WorkerSettings(database_url="")))
    return charge


async def test_run_is_read_with_the_flow_control_it_was_triggered_with(charge: Any) -> None:
    run = await runs.retrieve(await charge.trigger(1, ttl="10m", concurrency=["priority"], concurrency_key=7))

    assert (run.queue, run.ttl, run.limits, run.concurrency_key) == ("cards", 600.0, ("priority",), "7")
    assert run.expires_at is not None
    assert timedelta(minutes=9) < run.expires_at - run.created_at < timedelta(minutes=11)


async def test_ttl_of_the_task_holds_unless_the_trigger_switches_it_off(charge: Any) -> None:
    own, never = [await runs.retrieve(await charge.trigger(1, **options)) for options in ({}, {"ttl": 0})]

    assert own.expires_at is not None
    assert never.expires_at is None


async def test_delayed_run_is_given_another_date(charge: Any) -> None:
    handle = await charge.trigger(1, delay="1h")
    moment = datetime.now(UTC) + timedelta(days=30)

    assert (await runs.reschedule(handle, moment)).due_at == moment
    sooner = await runs.reschedule(handle.id, "1m")
    assert sooner.status is RunStatus.DELAYED
    assert sooner.due_at is not None
    assert sooner.due_at < moment


async def test_run_without_a_date_to_move_is_refused(charge: Any) -> None:
    handle = await charge.trigger(1)
    with pytest.raises(UnprocessableEntityError, match="only a delayed run has a date to move"):
        await runs.reschedule(handle, "1h")
    with pytest.raises(NotFoundError):
        await runs.reschedule(new_run_id(), "1h")
    with pytest.raises(ValueError, match="is a naive datetime"):
        runs.reschedule(handle, datetime(2030, 1, 1))


async def test_triggers_of_one_debounce_key_are_one_run(charge: Any) -> None:
    debounce = Debounce("card-1", "1h", mode="trailing")
    first, second = [await charge.trigger(amount, debounce=debounce) for amount in (1, 2)]
    other = await charge.trigger(3, debounce=Debounce("card-2", "1h"))

    assert first.id == second.id != other.id
    assert (await runs.retrieve(first)).payload == 2


async def test_queue_is_paused_limited_and_reset_over_deploys(charge: Any, engine: EngineBackend) -> None:
    await charge.trigger(1)
    found = await queues.retrieve("cards")
    assert (found.type, found.queued, found.paused, found.concurrency_limit) == ("custom", 1, False, 5)

    assert (await queues.pause(found.id)).paused
    assert (await queues.override_concurrency_limit("cards", 9)).concurrency_limit == 9
    await engine.register_worker(registration_of(WorkerSettings(database_url="")))
    kept = await queues.retrieve("cards")
    assert (kept.paused, kept.concurrency_limit, kept.concurrency.base) == (True, 9, 5)

    assert not (await queues.resume("cards")).paused
    assert (await queues.reset_concurrency_limit("cards")).concurrency_limit == 5
    with pytest.raises(BadRequestError, match="is not overridden"):
        await queues.reset_concurrency_limit("cards")


async def test_own_queue_of_a_task_is_there_by_the_task(engine: EngineBackend) -> None:
    @task
    async def tick() -> None: ...

    await engine.register_worker(registration_of(WorkerSettings(database_url="")))
    await tick.trigger()
    found = await queues.retrieve(tick)
    assert (found.name, found.type, found.queued) == ("task/tick", "task", 1)
    assert [each.name async for each in queues.list(per_page=1)] == ["task/tick"]


async def test_limits_are_overridden_whole_or_for_a_key(charge: Any) -> None:
    assert [limit.name async for limit in concurrency_limits.list()] == ["openai", "task/charge"]
    changed = await concurrency_limits.override("openai", total=None, rate=RateLimit(9, "1s"))
    assert (changed.total.base, changed.total.current, changed.rate) == (25, None, RateLimit(9, 1.0))
    back = await concurrency_limits.reset("openai")
    assert (back.total.current, back.rate) == (25, RateLimit(500, 60.0))

    (override,) = (await concurrency_limits.override(charge, concurrency_key=7, per_key=3, ttl="1d")).key_overrides
    assert (override.concurrency_key, override.per_key) == ("7", 3)
    assert (await concurrency_limits.reset(charge, concurrency_key=7)).key_overrides == ()
    with pytest.raises(BadRequestError, match="has no bound per key"):
        await concurrency_limits.override("openai", concurrency_key="k", per_key=3)


@pytest.mark.parametrize(
    "call", [lambda: queues.pause("nothing"), lambda: concurrency_limits.override("nothing", total=1)]
)
async def test_what_nobody_has_declared_cannot_be_changed(home: str, call: Callable[[], Any]) -> None:
    with pytest.raises(NotFoundError, match='"nothing"'):
        await call()


async def test_run_is_pinned_to_a_version_that_was_registered(
    charge: Any, engine: EngineBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("v1", "v2"):
        await engine.register_worker(registration_of(WorkerSettings(database_url="", version=name)))
    monkeypatch.setenv("DETENT_VERSION", "v2")
    pinned = [await tasks.trigger("charge", 1, **options) for options in ({}, {"version": "v1"})]
    assert [(await runs.retrieve(handle)).version for handle in pinned] == ["v2", "v1"]


async def test_trigger_into_a_full_queue_is_refused(home: str, engine: EngineBackend) -> None:
    @task(queue=queue("short", most_queued=1))
    async def tick() -> None: ...

    await engine.register_worker(registration_of(WorkerSettings(database_url="")))
    await tick.trigger()
    async with Client(database_url=home) as another:  # what a producer knows of a queue's depth may be some seconds old
        with pytest.raises(RateLimitError, match='queue "short" is full'):
            await another.tasks.trigger("tick")
    assert (await queues.retrieve("short")).most_queued == 1
