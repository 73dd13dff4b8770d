"""Durable pauses: what `wait` understands, and what it asks of the run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from detent import OutsideRunError, wait
from tests.sdk.fake_run import FakeRun

PAST, FUTURE = datetime(2000, 1, 1, tzinfo=UTC), datetime(2900, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("arguments", "units", "length"),
    [
        ((), {"seconds": 5}, timedelta(seconds=5)),
        ((), {"minutes": 1.5}, timedelta(seconds=90)),
        ((), {"hours": 2}, timedelta(hours=2)),
        ((), {"days": 0.5}, timedelta(hours=12)),
        ((), {"weeks": 1}, timedelta(days=7)),
        ((), {"months": 1}, timedelta(days=30)),
        ((), {"years": 1}, timedelta(days=365)),
        ((), {"seconds": 0}, timedelta(0)),
        (("1h30m",), {}, timedelta(minutes=90)),
        ((2.5,), {}, timedelta(seconds=2.5)),
        ((timedelta(days=3),), {}, timedelta(days=3)),
    ],
)
async def test_length_of_a_pause(run: FakeRun, arguments: Any, units: Any, length: timedelta) -> None:
    await wait.for_(*arguments, **units)

    assert run.waits == [length]


@pytest.mark.parametrize(
    ("arguments", "units", "error", "why"),
    [
        ((), {}, TypeError, "it was given none"),
        ((), {"seconds": 1, "minutes": 1}, TypeError, "it was given seconds and minutes"),
        (("1h",), {"seconds": 1}, TypeError, "it was given '1h' and seconds"),
        ((), {"seconds": -1}, ValueError, "wait.for_(seconds=-1): a duration cannot be negative"),
        ((), {"days": "2"}, ValueError, "wait.for_(days='2'): '2' is no duration"),
        (("soon",), {}, ValueError, "'soon' is no duration"),
        ((), {"years": 1e9}, ValueError, "too long"),
        ((), {"idempotency_key": "k"}, TypeError, "it was given none"),
    ],
)
async def test_bad_length_is_refused(
    run: FakeRun, arguments: Any, units: Any, error: type[Exception], why: str
) -> None:
    with pytest.raises(error) as refused:
        wait.for_(*arguments, **units)

    assert why in str(refused.value)
    assert run.waits == []


async def test_date_is_waited_for(run: FakeRun) -> None:
    await wait.until(FUTURE)
    await wait.until(PAST)

    assert run.waits == [FUTURE, PAST]


async def test_naive_date_is_refused(run: FakeRun) -> None:
    with pytest.raises(ValueError, match="is a naive datetime, which means another moment on every machine"):
        wait.until(datetime(2900, 1, 1))


async def test_past_date_is_refused_on_request_but_not_in_a_replay(run: FakeRun) -> None:
    with pytest.raises(ValueError, match="that is in the past"):
        wait.until(PAST, raise_if_past=True)

    run.is_replaying = True
    await wait.until(PAST, raise_if_past=True)

    assert run.waits == [PAST]


def test_pauses_outside_a_run_are_refused() -> None:
    with pytest.raises(OutsideRunError, match=r"wait\.for_ needs a run"):
        wait.for_(seconds=1)
    with pytest.raises(OutsideRunError, match=r"wait\.until needs a run"):
        wait.until(FUTURE)
