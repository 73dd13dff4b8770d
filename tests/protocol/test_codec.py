"""JSON as detent stores it: strict, compact, text in and text out."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent.errors import PayloadTooLargeError, SerializationError
from detent.protocol import codec

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_values_come_back_as_they_were(value: object) -> None:
    assert codec.decode(codec.encode(value)) == value


def test_text_is_compact_and_keeps_what_it_can() -> None:
    assert codec.encode({"a": [1, "ä\x00"]}) == '{"a":[1,"ä\\u0000"]}'


def deep(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (math.nan, "JSON compliant"),
        ([-math.inf], "JSON compliant"),
        ("\ud800", r"it holds a lone surrogate \('\\ud800'\)"),
        ({"\udfff": 1}, "lone surrogate"),
        (deep(10_000), "it is nested too deeply"),
        ({1, 2}, "set is not JSON serializable"),
        ({(1, 2): 3}, "keys must be"),
    ],
)
def test_what_json_cannot_hold_is_refused(value: object, why: str) -> None:
    with pytest.raises(SerializationError, match=f"the payload cannot be turned into JSON: .*{why}"):
        codec.encode(value, what="the payload")


def test_circle_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)

    with pytest.raises(SerializationError, match="Circular reference"):
        codec.encode(circle)


def test_limit_counts_bytes() -> None:
    assert codec.encode("ää", limit=6) == '"ää"'
    with pytest.raises(PayloadTooLargeError, match="the output is 6 bytes of JSON, over the limit of 5"):
        codec.encode("ää", what="the output", limit=5)


@pytest.mark.parametrize("text", ["", "{", "nonsense", "[1,]", "[" * 10_000])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(SerializationError, match="the journal cannot be turned into JSON"):
        codec.decode(text, what="the journal")
