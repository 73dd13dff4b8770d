"""One parser for every duration."""

from __future__ import annotations

import contextlib
import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent.duration import parse, seconds


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("500ms", 0.5), ("1ms", 0.001), ("30s", 30), ("10m", 600), ("1h", 3_600), ("1hr", 3_600), ("2d", 172_800),
        ("1w", 604_800), ("1h30m", 5_400), ("30m1h", 5_400), ("1w2d3h4m5s6ms", 788_645.006), ("0s", 0),
    ],
)  # fmt: skip
def test_text_adds_up_its_units(text: str, length: float) -> None:
    assert seconds(text) == length


@pytest.mark.parametrize(("value", "length"), [(5, 5), (2.5, 2.5), (timedelta(minutes=1), 60), (0, 0)])
def test_numbers_are_seconds(value: float | timedelta, length: float) -> None:
    assert seconds(value) == length


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "'' is no duration; use a timedelta, a number of seconds, or text such as"),
        ("5", "is no duration"),
        ("5 m", "is no duration"),
        ("1.5h", "is no duration"),
        ("-5s", "is no duration"),
        ("5x", "is no duration"),
        ("five minutes", "is no duration"),
        ("1m" * 51, "is no duration"),
        ("1h1hr", "the unit 'hr' appears twice"),
        ("1m1m", "the unit 'm' appears twice"),
        ("9" * 90 + "w", "too long"),
        (-1, "a duration cannot be negative: -1"),
        (timedelta(seconds=-1), "cannot be negative"),
        (math.nan, "is no duration"),
        (math.inf, "is no duration"),
        (1e300, "too long"),
        (10**4_000, "too long"),
        (True, "True is no duration"),
        (None, "None is no duration"),
        ([1], "is no duration"),
    ],
)
def test_what_is_no_duration_is_refused(value: object, why: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse(value)  # type: ignore[arg-type]

    assert why in str(refused.value)


@given(st.timedeltas(min_value=timedelta(0)))
def test_timedeltas_pass_unchanged(value: timedelta) -> None:
    assert parse(value) == value


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse(text) >= timedelta(0)
