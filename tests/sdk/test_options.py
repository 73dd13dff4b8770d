"""The options of a trigger: every one is checked at the call."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from detent import (
    Concurrency,
    Debounce,
    MetadataTooLargeError,
    SerializationError,
    TooManyTagsError,
    concurrency_limit,
    queue,
    task,
)
from detent.sdk.options import to_fields


def test_every_option_reaches_its_field() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)

    assert to_fields({"delay": "1h30m", "max_duration": 90, "priority": 5, "max_attempts": 4}) == {
        "delay": timedelta(minutes=90), "max_duration": 90.0, "priority": 5.0, "max_attempts": 4,
    }  # fmt: skip
    assert to_fields({"delay": moment, "queue": "cards", "concurrency_key": "user 7", "metadata": {"a": [1]}}) == {
        "delay": moment, "queue": "cards", "concurrency_key": "user 7", "metadata": '{"a":[1]}',
    }  # fmt: skip


def test_option_of_flow_control_reaches_its_field() -> None:
    emails, openai = queue("emails"), concurrency_limit("openai", total=25)

    assert to_fields({"ttl": "10m", "queue": emails, "concurrency": ["priority", openai], "version": "v2"}) == {
        "ttl": 600.0, "queue": "emails", "limits": ("priority", "openai"), "version": "v2",
    }  # fmt: skip
    assert to_fields({"ttl": 0, "queue": "task/my task", "concurrency": []}) == {
        "ttl": 0.0, "queue": "task/my task", "limits": (),
    }  # fmt: skip
    assert to_fields({"concurrency": openai}) == to_fields({"concurrency": "openai"}) == {"limits": ("openai",)}


@pytest.mark.parametrize(("key", "text"), [(7, "7"), (7.0, "7"), (-1.5, "-1.5"), ("7", "7"), (10**30, str(10**30))])
def test_concurrency_key_may_be_a_number(key: str | float, text: str) -> None:
    assert to_fields({"concurrency_key": key}) == {"concurrency_key": text}


def test_option_given_as_none_is_not_given() -> None:
    assert to_fields({"delay": None, "tags": None, "idempotency_key": None, "idempotency_key_ttl": "1h"}) == {}


def test_idempotency_key_carries_its_lifetime() -> None:
    fields: Any = to_fields({"idempotency_key": "order 1", "idempotency_key_ttl": "1h"})

    assert fields["idempotency"].ttl == timedelta(hours=1)
    assert fields["idempotency"].user_key == "order 1"


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"max_atempts": 3}, TypeError, "unknown option 'max_atempts'; did you mean \"max_attempts\"?"),
        ({"colour": "red"}, TypeError, "unknown option 'colour'; known are concurrency, concurrency_key, debounce"),
        ({"machine": 2}, TypeError, "machine: 2 must be the name of a machine"),
        ({"machine": " "}, ValueError, "machine: ' ' must be printable text"),
        ({"region": "x"}, TypeError, "not available yet"),
        ({"ttl": "soon"}, ValueError, "ttl: 'soon' is no duration"),
        ({"debounce": "doc-7"}, TypeError, "debounce='doc-7' must be a Debounce"),
        ({"debounce": Debounce("a\x00", "5s")}, ValueError, "NUL or a lone surrogate"),
        ({"version": " "}, ValueError, "version cannot be blank"),
        ({"version": 5}, TypeError, "version must be text"),
        ({"concurrency": ["a", "b", "c"]}, ValueError, "concurrency: a, b, c are 3 named limits, and a run holds at most 2"),
        ({"concurrency": ["a", "a"]}, ValueError, 'concurrency: the limit "a" is there twice'),
        ({"concurrency": "task/charge"}, ValueError, "'task/charge' is no name of a limit"),
        ({"concurrency": [None]}, TypeError, "None is no limit: give a concurrency_limit() or its name"),
        ({"concurrency": Concurrency(total=5)}, TypeError, "has no name: bounds are declared with the task"),
        ({"concurrency": 5}, TypeError, "5 has no name: bounds are declared with the task"),
        ({"delay": datetime(2030, 1, 1)}, ValueError, "is a naive datetime"),
        ({"delay": "soon"}, ValueError, "delay: 'soon' is no duration"),
        ({"delay": -5}, ValueError, "cannot be negative"),
        ({"delay": math.nan}, ValueError, "is no duration"),
        ({"max_duration": 0}, ValueError, "must be longer than 0 s"),
        ({"max_attempts": 0}, ValueError, "must be a whole number of 1 to 250"),
        ({"max_attempts": 251}, ValueError, "must be a whole number of 1 to 250"),
        ({"max_attempts": 2.5}, ValueError, "must be a whole number of 1 to 250"),
        ({"priority": "high"}, ValueError, "must be a number of seconds"),
        ({"priority": math.inf}, ValueError, "must be a number of seconds"),
        ({"queue": ""}, ValueError, "queue: '' is no name of a queue: 1 to 128 letters, digits, _, - and / make one"),
        ({"queue": "my queue"}, ValueError, "is no name of a queue"),
        ({"queue": "q" * 129}, ValueError, "is no name of a queue"),
        ({"queue": "task/" + "x" * 129}, ValueError, "is no name of a queue"),
        ({"queue": "limit/a"}, ValueError, 'names that begin with "limit/" are kept for concurrency limits'),
        ({"queue": 5}, TypeError, "queue: 5 is no queue: give a queue() or its name"),
        ({"concurrency_key": True}, TypeError, "concurrency_key must be text"),
        ({"concurrency_key": math.nan}, ValueError, "must be a text or a finite number"),
        ({"concurrency_key": "a\x00b"}, ValueError, "NUL or a lone surrogate"),
        ({"concurrency_key": "\ud800"}, ValueError, "NUL or a lone surrogate"),
        ({"idempotency_key": ""}, ValueError, "cannot be empty"),
        ({"idempotency_key": 5}, TypeError, "text or a sequence of texts"),
        ({"idempotency_key": ["a", None]}, TypeError, "text or a sequence of texts"),
        ({"idempotency_key": "k" * 2049}, ValueError, "at most 2048"),
        ({"idempotency_key": "k", "idempotency_key_ttl": "forever"}, ValueError, "idempotency_key_ttl: 'forever' is no duration"),
        ({"metadata": [1]}, SerializationError, "must be an object"),
        ({"metadata": {1: 2}}, SerializationError, "its keys must be texts"),
        ({"metadata": {"a": math.nan}}, SerializationError, "metadata cannot be turned into JSON"),
        ({"metadata": {"a": "\x00"}}, SerializationError, "NUL"),
        ({"metadata": {"a": "x" * 262_144}}, MetadataTooLargeError, "over the limit of 262,144"),
        ({"tags": 5}, TypeError, "tags must be text or several texts"),
        ({"tags": [5]}, TypeError, "a tag must be text"),
        ({"tags": ["a\x00"]}, ValueError, "NUL"),
    ],
)  # fmt: skip
def test_bad_option_is_refused(options: dict[str, object], error: type[Exception], why: str) -> None:
    with pytest.raises(error) as refused:
        to_fields(options)

    assert why in str(refused.value)


def test_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert to_fields({"metadata": {"a": "\\u0000"}}) == {"metadata": '{"a":"\\\\u0000"}'}


def test_tags_lose_blank_ones_and_repetitions() -> None:
    assert to_fields({"tags": ["a", " ", "b", "", "a"]}) == {"tags": ("a", "b")}
    assert to_fields({"tags": "one"}) == {"tags": ("one",)}
    assert to_fields({"tags": [*"abcdefghij", "a", ""]}) == {"tags": tuple("abcdefghij")}


def test_eleven_tags_are_too_many_and_a_long_one_is_too_long() -> None:
    with pytest.raises(TooManyTagsError, match="11 tags are over the limit of 10"):
        to_fields({"tags": [str(n) for n in range(11)]})
    with pytest.raises(ValueError, match="a tag has 129 characters, over the limit of 128"):
        to_fields({"tags": "x" * 129})


def test_mistake_is_refused_before_anything_is_awaited() -> None:
    @task
    async def charge(order: int) -> None: ...

    with pytest.raises(TypeError, match="unknown option 'dely'"):
        charge.trigger(1, dely="1h")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unknown option 'dely'"):
        charge.item(1, dely="1h")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unknown option 'dely'"):
        charge.batch_trigger([1], dely="1h")  # type: ignore[call-arg]
