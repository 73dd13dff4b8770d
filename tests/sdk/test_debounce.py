"""`Debounce` is checked where it is made, and reaches the trigger."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from detent import Debounce
from detent.protocol.flow import DebounceMode, Debouncing
from detent.sdk.options import to_fields


def test_debounce_reaches_the_trigger() -> None:
    assert to_fields({"debounce": Debounce("doc-7", "5s")}) == {
        "debounce": Debouncing(key="doc-7", delay=timedelta(seconds=5))
    }
    assert to_fields({"debounce": Debounce("doc-7", 1, "trailing", "1m")}) == {
        "debounce": Debouncing(
            key="doc-7", delay=timedelta(seconds=1), mode=DebounceMode.TRAILING, max_delay=timedelta(minutes=1)
        )
    }


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"key": ""}, "Debounce: key='' must be text of 1 to 512 characters"),
        ({"key": "k" * 513}, "must be text of 1 to 512 characters"),
        ({"key": 7}, "must be text of 1 to 512 characters"),
        ({"delay": "999ms"}, "delay='999ms' must be at least 1 s"),
        ({"delay": "soon"}, "Debounce: delay: 'soon' is no duration"),
        (
            {"delay": datetime(2030, 1, 1, tzinfo=UTC)},
            "must be a duration; a date is what the trigger's own delay= takes",
        ),
        ({"mode": "both"}, 'mode=\'both\' must be "leading" or "trailing"'),
        ({"max_delay": "5s"}, "max_delay='5s' must be longer than delay='5s'"),
    ],
)
def test_bad_debounce_is_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError) as refused:
        Debounce(**{"key": "doc-7", "delay": "5s", **fields})

    assert why in str(refused.value)
