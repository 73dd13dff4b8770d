"""What falls due sooner than a ticker looks again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from detent.engine.alarm import Alarm
from detent.errors import ApiConnectionError


class Ticks:
    def __init__(self) -> None:
        self.count = 0
        self.happened = asyncio.Event()

    async def __call__(self) -> float:
        self.count += 1
        self.happened.set()
        raise ApiConnectionError("away")


async def test_what_is_due_within_a_second_is_ticked_for_without_a_ticker() -> None:
    ticks = Ticks()
    alarm = Alarm(ticks)
    alarm.set(timedelta(0))
    async with asyncio.timeout(5):
        await ticks.happened.wait()


async def test_what_is_due_at_the_same_moment_is_ticked_for_once() -> None:
    ticks = Ticks()
    alarm = Alarm(ticks)
    for _ in range(100):
        alarm.set(timedelta(milliseconds=1))
    async with asyncio.timeout(5):
        await ticks.happened.wait()
    assert ticks.count <= 2  # the hundred may straddle a line of the grid


@pytest.mark.parametrize("due", [timedelta(seconds=2), datetime.now(UTC), None])
async def test_what_is_due_later_or_at_a_date_is_left_to_the_tickers(due: timedelta | datetime | None) -> None:
    alarm = Alarm(Ticks())
    alarm.set(due)
    assert not alarm._timers
