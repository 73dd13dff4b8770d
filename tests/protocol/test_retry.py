"""The retry policy: the reference's formula, checked at definition."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent import DefinitionError, Retry


@pytest.mark.parametrize(
    ("retry", "delays"),
    [
        (Retry(randomize=False), [1, 2, 4, 8, 10, 10]),
        (Retry(randomize=False, factor=1.8, min_timeout="500ms", max_timeout="30s"), [0.5, 0.9, 1.62, 2.916]),
        (Retry(randomize=False, factor=1, min_timeout=3), [3, 3, 3]),
        (Retry(randomize=False, min_timeout="1m"), [10, 10]),
    ],
)
def test_delay_grows_up_to_its_cap(retry: Retry, delays: list[float]) -> None:
    assert [retry.delay_after(attempt).total_seconds() for attempt in range(1, len(delays) + 1)] == delays


@given(st.integers(1, 400))
def test_jitter_only_lengthens_and_the_cap_comes_last(attempt: int) -> None:
    retry, plain = Retry(), Retry(randomize=False)

    assert (
        plain.delay_after(attempt)
        <= retry.delay_after(attempt)
        <= min(timedelta(seconds=10), 2 * plain.delay_after(attempt))
    )


def test_enormous_growth_is_capped() -> None:
    assert Retry(factor=1e300, randomize=False).delay_after(250) == timedelta(seconds=10)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"max_attempts": 0}, "max_attempts=0): it must be 1 to 250"),
        ({"max_attempts": 251}, "it must be 1 to 250"),
        ({"max_attempts": 2.5}, "it must be a whole number"),
        ({"max_attempts": True}, "it must be a whole number"),
        ({"factor": 0}, "factor=0): it must be over 0"),
        ({"factor": float("nan")}, "it must be over 0"),
        ({"min_timeout": "soon"}, "min_timeout='soon'): 'soon' is no duration"),
        ({"oom_machine": 2}, "oom_machine=2): it must be the name of a machine"),
        ({"oom_machine": "large-1x", "max_attempts": 1}, "no attempt is left for that machine; allow at least 2"),
        ({"max_timeout": -1}, "max_timeout=-1): a duration cannot be negative"),
    ],
)
def test_bad_policy_is_refused_at_definition(fields: Any, why: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        Retry(**fields)

    assert why in str(refused.value)
