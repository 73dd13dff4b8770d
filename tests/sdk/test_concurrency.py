"""What a task may hold: an inline limit, and two named ones."""

from __future__ import annotations

from typing import Any

import pytest

from detent import (
    Concurrency,
    ConcurrencyLimit,
    DefinitionError,
    DuplicateLimitError,
    RateLimit,
    Retry,
    concurrency_limit,
    queue,
    task,
)
from detent.protocol.flow import LimitDeclaration, LimitKind, Rate
from detent.sdk import concurrency
from detent.sdk.declarations import declarations


def limit(name: str, **bounds: Any) -> LimitDeclaration:
    return LimitDeclaration(kind=LimitKind.LIMIT, name=name, **bounds)


@pytest.mark.parametrize(
    ("option", "inline"),
    [
        (5, limit("task/charge", total=5)),
        (0, limit("task/charge", total=0)),
        (Concurrency(per_key=1, total=10), limit("task/charge", total=10, per_key=1)),
        (RateLimit(100, "1m"), limit("task/charge", rate=Rate(starts=100, period=60.0))),
        (
            [Concurrency(total=5), RateLimit(2, 0.5, per_key=True)],
            limit("task/charge", total=5, rate=Rate(starts=2, period=0.5, per_key=True)),
        ),
        ((RateLimit(1, "1s"), 5), limit("task/charge", total=5, rate=Rate(starts=1, period=1.0))),
    ],
)
def test_inline_bounds_are_a_limit_named_after_the_task(option: Any, inline: LimitDeclaration) -> None:
    @task(concurrency=option)
    async def charge() -> None: ...

    assert charge.limits.inline == inline
    assert charge.registration(Retry()).limits == ("task/charge",)


def test_task_holds_its_inline_limit_and_then_the_named_ones() -> None:
    openai = concurrency_limit("openai", total=25, rate=RateLimit(500, "1m"))

    @task(concurrency=[openai, Concurrency(total=5), "tenant"])
    async def summarize() -> None: ...

    @task(concurrency=openai)
    async def title() -> None: ...

    @task(concurrency=[])
    async def free() -> None: ...

    held = [made.registration(Retry()).limits for made in (summarize, title, free)]
    assert held == [("task/summarize", "openai", "tenant"), ("openai",), ()]
    assert declarations.all() == [limit("openai", total=25, rate=Rate(starts=500, period=60.0))]


def test_named_limit_is_what_was_declared() -> None:
    assert concurrency_limit("tenant", per_key=10) == ConcurrencyLimit(name="tenant", per_key=10)


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ([Concurrency(total=1), Concurrency(per_key=1)], "2 inline bounds: a task has one, with total= and per_key="),
        ([5, Concurrency(per_key=1)], "2 inline bounds"),
        ([RateLimit(1, 1), RateLimit(9, 60)], "2 inline rate limits: a task has one; name a further one with"),
        (["a", "b", "c"], "a, b, c are 3 named limits, and a run holds at most 2"),
        (["a", "a"], 'the limit "a" is there twice'),
        ("my limit", "'my limit' is no name of a limit: 1 to 122 letters, digits, _ and - make one"),
        ("task/charge", "is no name of a limit"),
        (-1, "total=-1 must be a whole number"),
        (True, "True is no limit: give a concurrency_limit() or its name"),
        ({"total": 1}, "{'total': 1} is no limit"),
    ],
)  # fmt: skip
def test_anything_more_is_refused_at_the_definition(option: Any, why: str) -> None:
    with pytest.raises(DefinitionError) as refused:

        @task(concurrency=option)
        async def charge() -> None: ...

    assert why in str(refused.value)
    assert 'task "charge" in tests/sdk/test_concurrency.py:' in str(refused.value)


@pytest.mark.parametrize("name", ["", "a" * 123, "a/b", "a b", "größe", 5])
def test_bad_name_of_a_limit_is_refused_with_the_place(name: str) -> None:
    with pytest.raises(
        DefinitionError, match=r"concurrency_limit\(.*\) in tests/sdk/test_concurrency.py:\d+: .* is no"
    ):
        concurrency_limit(name, total=1)


@pytest.mark.parametrize(
    ("bounds", "why"),
    [
        ({"total": -1}, "total=-1 must be a whole number of 0 to 2,147,483,647, or None for no bound"),
        ({"per_key": True}, "per_key=True must be a whole number"),
        ({"rate": 5}, 'rate=5 must be a RateLimit, such as RateLimit(100, "1m")'),
    ],
)
def test_bad_bound_of_a_limit_is_refused(bounds: Any, why: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        concurrency_limit("openai", **bounds)

    assert why in str(refused.value)


def test_limit_that_is_declared_twice_with_other_bounds_is_refused() -> None:
    concurrency_limit("openai", total=25)
    with pytest.raises(DuplicateLimitError, match=r'limit "openai" in .* is already declared in .* with other bounds'):
        concurrency_limit("openai", total=25, rate=RateLimit(1, "1s"))


def test_limit_and_queue_may_share_a_name() -> None:
    concurrency_limit("emails", total=5)
    queue("emails", concurrency_limit=7)

    assert [found.kind for found in declarations.all()] == [LimitKind.LIMIT, LimitKind.QUEUE]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Concurrency, "Concurrency() bounds nothing; give it total=, per_key=, or both"),
        (lambda: Concurrency(total=-1), "Concurrency: total=-1 must be a whole number"),
        (lambda: RateLimit(0, "1m"), "RateLimit: limit=0 must be 1 or more"),
        (lambda: RateLimit(1, 0), "RateLimit: period must be longer than 0 s"),
        (lambda: RateLimit(1, "often"), "RateLimit: 'often' is no duration"),
    ],
)
def test_bound_that_is_none_is_refused(make: Any, why: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        make()

    assert why in str(refused.value)


def test_names_are_read_from_one_thing_or_many() -> None:
    assert concurrency.to_names("a") == ("a",)
    assert concurrency.to_names(name for name in ("a", "b")) == ("a", "b")
