"""`concurrency_limits` names limits in every way, and asks a backend for what is wanted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from detent import NotFoundError, RateLimit, RetrievedLimit, concurrency_limit, task
from detent.protocol.flow import (
    Bound,
    KeyOverride,
    LimitKind,
    LimitRef,
    Override,
    OverrideKey,
    Pause,
    Rate,
    Reset,
    Resume,
)
from detent.sdk.concurrency_limits import ConcurrencyLimits
from tests.sdk.fake_limits import FakeLimits, record

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
OPENAI = LimitRef(kind=LimitKind.LIMIT, name="openai")


async def test_limit_is_read_with_what_goes_on_under_it() -> None:
    overrides = (KeyOverride(concurrency_key="user 7", per_key=3, expires_at=NOON),)
    known = FakeLimits(
        record(
            LimitKind.LIMIT, "openai", total=Bound(base=25), per_key=Bound(base=1), rate=Rate(starts=500, period=60.0),
            running=14, queued=100, key_overrides=overrides,
        )
    )  # fmt: skip

    assert await ConcurrencyLimits(known.target).retrieve("openai") == RetrievedLimit(
        id="climit_openai", name="openai", total=Bound(base=25), per_key=Bound(base=1), rate=RateLimit(500, 60.0),
        running=14, queued=100, paused=False, key_overrides=overrides,
    )  # fmt: skip


async def test_limit_is_named_by_object_name_id_or_task() -> None:
    @task(id="send", concurrency=5)
    async def send() -> None: ...

    known = FakeLimits()
    limits = ConcurrencyLimits(known.target)
    for named in (
        concurrency_limit("openai", total=1),
        "openai",
        "climit_01h455vb4pex5vsknk084sn02q",
        "task/a b",
        send,
    ):
        await limits.pause(named)

    names = ["openai", "openai", "climit_01h455vb4pex5vsknk084sn02q", "task/a b", "task/send"]
    assert known.changes == [Pause(ref=LimitRef(kind=LimitKind.LIMIT, name=name)) for name in names]


async def test_override_changes_only_what_is_given() -> None:
    known = FakeLimits()
    limits = ConcurrencyLimits(known.target)
    await limits.override("openai", total=50)
    await limits.override("openai", per_key=None, rate=RateLimit(9, "1m"))
    await limits.override("openai", rate=None)

    assert known.changes == [
        Override(ref=OPENAI, total=50),
        Override(ref=OPENAI, per_key=None, rate=Rate(starts=9, period=60.0)),
        Override(ref=OPENAI, rate=None),
    ]


async def test_override_of_one_key_holds_for_a_time() -> None:
    known = FakeLimits()
    limits = ConcurrencyLimits(known.target)
    await limits.override("openai", concurrency_key="user 7", per_key=3)
    await limits.override("openai", concurrency_key=7, per_key=0, ttl="1d")

    assert known.changes == [
        OverrideKey(ref=OPENAI, concurrency_key="user 7", per_key=3, ttl=timedelta(days=7)),
        OverrideKey(ref=OPENAI, concurrency_key="7", per_key=0, ttl=timedelta(days=1)),
    ]


async def test_other_changes_ask_for_what_they_say() -> None:
    known = FakeLimits()
    limits = ConcurrencyLimits(known.target)
    await limits.reset("openai")
    await limits.reset("openai", concurrency_key=7)
    await limits.pause("openai")
    await limits.resume("openai")

    assert known.changes == [
        Reset(ref=OPENAI),
        Reset(ref=OPENAI, concurrency_key="7"),
        Pause(ref=OPENAI),
        Resume(ref=OPENAI),
    ]


@pytest.mark.parametrize(
    ("given", "error", "why"),
    [
        ({}, TypeError, "it was given nothing"),
        ({"totl": 5}, TypeError, "takes total=, per_key= and rate=, or concurrency_key=, per_key= and ttl=; it was given totl"),
        ({"per_key": 3, "ttl": "1d"}, TypeError, "it was given per_key, ttl"),
        ({"total": -1}, ValueError, "total=-1 must be a whole number"),
        ({"rate": 5}, TypeError, "rate=5 must be a RateLimit"),
        ({"concurrency_key": "k", "per_key": 3, "total": 5}, TypeError, "change total= and rate= without a key"),
        ({"concurrency_key": "k"}, TypeError, "takes per_key="),
        ({"concurrency_key": "k", "per_key": None}, ValueError, "reset(..., concurrency_key=...) takes it away"),
        ({"concurrency_key": "k", "per_key": 3, "ttl": "999ms"}, ValueError, "ttl='999ms' must be 1 s to 30 days"),
        ({"concurrency_key": "k", "per_key": 3, "ttl": "31d"}, ValueError, "ttl='31d' must be 1 s to 30 days"),
        ({"concurrency_key": "", "per_key": 3}, ValueError, "concurrency_key cannot be blank"),
    ],
)  # fmt: skip
async def test_override_of_nothing_or_too_much_is_refused(given: Any, error: type[Exception], why: str) -> None:
    with pytest.raises(error) as refused:
        ConcurrencyLimits(FakeLimits().target).override("openai", **given)

    assert why in str(refused.value)


async def test_limit_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFoundError, match='there is no concurrency limit "openai" in this environment') as refused:
        await ConcurrencyLimits(FakeLimits().target).retrieve("openai")

    assert refused.value.code == "limit_not_found"


async def test_list_is_of_limits_alone() -> None:
    known = FakeLimits(record(LimitKind.LIMIT, "openai"), record(LimitKind.QUEUE, "emails"))
    assert [found.name async for found in ConcurrencyLimits(known.target).list()] == ["openai"]


def test_blocking_twin_does_the_same() -> None:
    known = FakeLimits()
    ConcurrencyLimits(known.target).sync.override("openai", total=5)
    ConcurrencyLimits(known.target).sync.override("openai", concurrency_key="k", per_key=1)

    assert [type(change) for change in known.changes] == [Override, OverrideKey]
