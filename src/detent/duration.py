"""One parser and one type for every duration in detent."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import TypeAlias

Duration: TypeAlias = timedelta | float | int | str
"""A `timedelta`, a number of seconds, or text such as `"500ms"`, `"30s"`, `"1h30m"`, `"2d"`, `"1w"`."""

_UNITS = {"w": 604_800.0, "d": 86_400.0, "h": 3_600.0, "hr": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"(\d+)(ms|hr|w|d|h|m|s)")
_WHOLE = re.compile(r"(?:\d+(?:ms|hr|w|d|h|m|s))+")
_LONGEST_TEXT = 100


def parse(value: Duration) -> timedelta:
    """Return *value* as a `timedelta`; raise `ValueError` when it is no duration, or a negative one.

    >>> parse("1h30m")
    datetime.timedelta(seconds=5400)
    >>> parse(2.5)
    datetime.timedelta(seconds=2, microseconds=500000)
    """
    match value:
        case timedelta():
            parsed = value
        case bool():
            raise ValueError(_refusal(value))
        case int() | float():
            parsed = _from_seconds(value)
        case str():
            parsed = _from_text(value)
        case _:
            raise ValueError(_refusal(value))
    if parsed < timedelta(0):
        raise ValueError(f"a duration cannot be negative: {value!r}")
    return parsed


def seconds(value: Duration) -> float:
    """Return *value* in seconds.

    >>> seconds("1m30s")
    90.0
    """
    return parse(value).total_seconds()


def _from_seconds(value: float) -> timedelta:
    try:
        if not math.isfinite(value):
            raise ValueError(_refusal(value))
        return timedelta(seconds=value)
    except OverflowError as error:
        raise ValueError(f"a duration of {value!r} seconds is too long") from error


def _from_text(text: str) -> timedelta:
    if len(text) > _LONGEST_TEXT or not _WHOLE.fullmatch(text):
        raise ValueError(_refusal(text))
    total, seen = 0.0, set[str]()
    for number, unit in _PART.findall(text):
        name = "h" if unit == "hr" else unit
        if name in seen:
            raise ValueError(f"the unit {unit!r} appears twice in the duration {text!r}")
        seen.add(name)
        total += int(number) * _UNITS[unit]
    return _from_seconds(round(total, 6))


def _refusal(value: object) -> str:
    return f'{value!r} is no duration; use a timedelta, a number of seconds, or text such as "500ms", "30s", "1h30m", "2d"'
