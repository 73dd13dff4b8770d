"""Timers of runs, by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from detent.worker.path import ROOT
from detent.worker.timers import Timer, Timers, now


def later(delay: float, callback: Callable[..., object], **options: object) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(delay, callback)


def timer_of(timers: Timers, delay: float, path: str = ROOT) -> Timer:
    timer = Timer(timers, delay, lambda: None, (), None)
    timer.path = path
    timers.add(later, timer)
    return timer


@pytest.mark.parametrize("ahead", [timedelta(hours=5), timedelta()])
async def test_a_replayed_timer_is_not_put_off_by_a_database_whose_clock_is_ahead(ahead: timedelta) -> None:
    timers = Timers()
    timers.is_replaying = lambda: True
    timer = timer_of(timers, 10)
    timers.date(datetime.now(UTC) + ahead)
    assert timer.deadline is not None
    assert timer.deadline <= now() + 10


async def test_a_replayed_timer_has_what_is_left_of_its_time() -> None:
    timers = Timers()
    timers.is_replaying = lambda: True
    timer = timer_of(timers, 10)
    timers.date(datetime.now(UTC) - timedelta(seconds=8))
    assert timer.deadline is not None
    assert 1 < timer.deadline - now() <= 2


async def test_a_timer_that_ends_counts_and_one_that_is_held_does_not() -> None:
    timers = Timers()
    timer = timer_of(timers, 10)
    timers.is_held = True
    timer.end()
    assert timers.ended == 0
    timers.release()
    assert timers.ended == 1
    assert timers.until_next() is None


@pytest.mark.parametrize(
    ("operation", "ended"),
    [("main/one~0/0", "main/one~0/"), ("main/one~1/0", "main/"), ("main/other~0/deeper~0/2", "main/other~0/")],
)
async def test_what_is_given_up_ends_the_first_timer_that_was_set_around_it(operation: str, ended: str) -> None:
    timers, paths = Timers(), ["main/other~0/", "main/one~0/", "main/"]
    for seconds, path in enumerate(paths, start=10):
        timer_of(timers, seconds, path)
    assert timers.give_up(operation)
    assert [timer.path for timer in timers._open] == [path for path in paths if path != ended]
