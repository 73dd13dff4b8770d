"""What a task knows about its run, and the signal that asks it to stop."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import pytest

from detent import CancelSignal, Context, OutsideRunError, RunCancelledError
from detent.protocol.ids import BatchId, RunId
from tests.sdk.fake_run import FakeRun, context


def test_context_holds_what_the_lease_says() -> None:
    ctx = context(
        batch_id=BatchId("batch_1"), parent_run_id=RunId("run_p"), replay_of=RunId("run_o"), idempotency_key="order 1",
        idempotency_key_scope="global",
    )  # fmt: skip

    assert (ctx.task.id, ctx.task.file_path, ctx.attempt.number) == ("parent", "tasks/parent.py", 2)
    assert (ctx.queue.name, ctx.environment.slug, ctx.project.id) == ("task/parent", "dev", "shop")
    assert (ctx.run.tags, ctx.run.is_replay, ctx.run.is_test) == (("user:7",), True, False)
    assert ctx.run.parent_task_run_id == "run_p"
    assert (ctx.run.idempotency_key, ctx.run.idempotency_key_scope) == ("order 1", "global")
    assert ctx.run.batch is not None
    assert ctx.run.batch.id == "batch_1"
    assert ctx.machine is None
    assert ctx.deployment is None
    assert ctx.attempt.started_at.tzinfo is not None


def test_context_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        context().run.tags = ()  # type: ignore[misc]


async def test_current_context_is_that_of_the_run(run: FakeRun) -> None:
    assert Context.current() is run.context


def test_there_is_no_current_context_outside_a_run() -> None:
    with pytest.raises(OutsideRunError, match=r"Context\.current\(\) needs a run"):
        Context.current()


def test_untripped_signal_lets_the_task_go_on() -> None:
    signal = CancelSignal("run_1")

    signal.raise_if_cancelled()
    assert not signal.is_set()
    assert signal.reason == ""


def test_first_reason_counts() -> None:
    signal = CancelSignal("run_1")
    signal.trip("cancelled by user")
    signal.trip("too late")

    assert signal.is_set()
    assert signal.reason == "cancelled by user"
    with pytest.raises(RunCancelledError, match="run run_1 was cancelled: cancelled by user"):
        signal.raise_if_cancelled()


async def test_waiters_are_woken_from_another_thread() -> None:
    signal = CancelSignal("run_1")
    waiters = [asyncio.ensure_future(signal.wait()) for _ in range(3)]
    await asyncio.sleep(0)

    threading.Thread(target=signal.trip, args=("stop",)).start()

    await asyncio.wait_for(asyncio.gather(*waiters), 5)
    await signal.wait()


async def test_cancelled_waiter_leaves_nothing_behind() -> None:
    signal = CancelSignal("run_1")
    waiter = asyncio.ensure_future(signal.wait())
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.wait([waiter])

    assert signal._waiters == []
