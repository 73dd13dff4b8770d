"""A loop that computes gives others their turn, and learns that it is to end."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from detent import OutsideRunError, RunCancelledError, heartbeats
from tests.sdk.fake_run import FakeRun


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that `time.monotonic` tells."""
    now = [1000.0]
    monkeypatch.setattr("detent.sdk.heartbeats.time.monotonic", lambda: now[0])
    return now


async def test_the_loop_turns_once_it_has_stood_for_some_time(clock: list[float]) -> None:
    turns: list[float] = []

    async def compute() -> None:
        for _ in range(100):
            clock[0] += 0.001
            await heartbeats.yield_()

    async def neighbour() -> None:
        while True:
            turns.append(clock[0])
            await asyncio.sleep(0)

    other = asyncio.create_task(neighbour())
    await compute()
    other.cancel()
    assert 8 <= len(turns) <= 12


async def test_a_cancelled_loop_ends() -> None:
    async def compute() -> None:
        while True:
            await heartbeats.yield_()

    computing = asyncio.create_task(compute())
    await asyncio.sleep(0)
    computing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await computing


async def test_a_thread_learns_that_its_run_is_to_end(run: FakeRun) -> None:
    run.refusal = RunCancelledError("run_1", "enough")
    with pytest.raises(RunCancelledError, match="enough"):
        await asyncio.to_thread(heartbeats.sync.yield_)


def test_each_thread_has_turns_of_its_own() -> None:
    heartbeats.sync.yield_()
    turned: list[float] = []
    thread = threading.Thread(target=lambda: turned.append(heartbeats.sync._turned_at))
    thread.start()
    thread.join()
    assert turned == [0.0]
    assert heartbeats.sync._turned_at > 0


async def test_both_may_be_called_outside_of_runs() -> None:
    await heartbeats.yield_()
    heartbeats.sync.yield_()


async def test_last_tells_when_the_loop_of_the_runner_turned(run: FakeRun) -> None:
    run.last_turn = time.monotonic() - 60
    assert heartbeats.last() == pytest.approx(datetime.now(UTC) - timedelta(minutes=1), abs=timedelta(seconds=5))


def test_last_needs_a_run() -> None:
    with pytest.raises(OutsideRunError, match=r"heartbeats\.last"):
        heartbeats.last()
