"""What a run has taken, as its code reads it."""

from __future__ import annotations

import dataclasses

import pytest

from detent import OutsideRunError, Usage, usage
from tests.sdk.fake_run import FakeRun


def used(seconds: float, cpu_time: float | None = None) -> Usage:
    return Usage(attempt_duration=seconds, run_duration=seconds + 100, cpu_time=cpu_time)


async def test_current_is_what_the_run_has_taken_and_cannot_be_changed(run: FakeRun) -> None:
    run.used = used(3)
    assert usage.current() == used(3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        usage.current().run_duration = 0  # type: ignore[misc]


async def test_a_block_is_measured_while_it_goes_on_and_as_a_whole_after_it(run: FakeRun) -> None:
    run.used = used(3, cpu_time=1)
    with usage.measure() as spent:
        run.used = used(5, cpu_time=2)
        assert (spent.duration, spent.cpu_time) == (2, 1)
        run.used = used(10, cpu_time=3)
    run.used = used(1000, cpu_time=1000)
    assert (spent.duration, spent.cpu_time) == (7, 2)
    assert repr(spent) == "Spent(duration=7, cpu_time=2)"


async def test_a_block_that_raises_is_measured_too(run: FakeRun) -> None:
    measurement = usage.measure()
    spent = await measurement.__aenter__()
    run.used = used(4)
    await measurement.__aexit__(ValueError, ValueError("boom"), None)
    run.used = used(5)
    assert (spent.duration, spent.cpu_time) == (4, None)


@pytest.mark.parametrize("call", [usage.current, usage.measure])
def test_there_is_no_usage_outside_of_runs(call: object) -> None:
    with pytest.raises(OutsideRunError, match=r"usage\."):
        call()  # type: ignore[operator]
