"""Waiting, percentiles and figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


class MeasurementError(Exception):
    """What was measured did not happen as it should: there is no figure."""


def until(is_so: Callable[[], bool], what: str, *, within: float, every: float = 0.02) -> None:
    """Return when *is_so* says yes; raise `MeasurementError` when that takes more seconds than *within*."""
    deadline = time.monotonic() + within
    while not is_so():
        if time.monotonic() > deadline:
            raise MeasurementError(f"waited {within:.0f} s in vain until {what}")
        time.sleep(every)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least *share* of all do not exceed.

    >>> percentile([4.0, 1.0, 3.0, 2.0], 0.5)
    2.0
    """
    return sorted(values)[max(0, -(-len(values) * round(share * 100) // 100) - 1)]


def median(values: Sequence[float]) -> float:
    return percentile(values, 0.5)


def figure(value: float) -> float:
    """Return *value* to three significant digits, whole from 100 on.

    >>> figure(8123.456), figure(0.34567)
    (8123, 0.346)
    """
    return round(value) if abs(value) >= 100 else float(f"{value:.3g}")
