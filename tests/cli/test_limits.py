"""`detent queues`, `detent limits` and `detent why`: what they ask for, and what they print."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest

from detent.cli import calling, database
from detent.cli.calling import Caller
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
from detent.sdk.queues import Queues
from tests.cli.conftest import Detent
from tests.sdk.fake_limits import FakeLimits, record

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
EMAILS = LimitRef(kind=LimitKind.QUEUE, name="emails")
OPENAI = LimitRef(kind=LimitKind.LIMIT, name="openai")
ENVIRONMENT = LimitRef(kind=LimitKind.ENVIRONMENT)


@pytest.fixture
def known() -> FakeLimits:
    overridden = Bound(base=5, override=9, overridden_at=NOON)
    soon = datetime.now(UTC) + timedelta(days=2, minutes=1)
    return FakeLimits(
        record(LimitKind.QUEUE, "emails", running=3, queued=12, paused_at=NOON, per_key=overridden),
        record(LimitKind.QUEUE, "task/hello"),
        record(
            LimitKind.LIMIT, "openai", total=Bound(base=25), per_key=Bound(base=1), rate=Rate(starts=500, period=60.0),
            running=14, queued=100, key_overrides=(KeyOverride(concurrency_key="user 7", per_key=3, expires_at=soon),),
        ),
        record(LimitKind.ENVIRONMENT, "", total=Bound(base=50), running=17, queued=112),
    )  # fmt: skip


@pytest.fixture
def at_limits(detent: Detent, known: FakeLimits, monkeypatch: pytest.MonkeyPatch) -> Detent:
    """Commands speak to `known`."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[str]:
        yield ""

    @asynccontextmanager
    async def called(dsn: str, environment: str) -> AsyncIterator[Caller]:
        client = SimpleNamespace(queues=Queues(known.target), concurrency_limits=ConcurrencyLimits(known.target))
        yield cast("Caller", SimpleNamespace(client=client, backend=known))

    monkeypatch.setattr(database, "opened", opened)
    monkeypatch.setattr(calling, "calling", called)
    return detent


def test_queues_are_listed_with_what_goes_on_in_them(at_limits: Detent) -> None:
    header, *lines = at_limits("queues", "list").out.splitlines()
    assert header.split() == ["QUEUE", "RUNNING", "QUEUED", "LIMIT", "STATE"]
    assert [line.split() for line in lines] == [
        ["emails", "3", "12", "9", "(declared:", "5)", "paused"],
        ["task/hello", "0", "0", "none", "open"],
    ]
    emails = at_limits("queues", "list", "--json").json[0]
    assert (emails["name"], emails["concurrency_limit"], emails["paused"]) == ("emails", 9, True)
    assert emails["concurrency"] == {"base": 5, "override": 9, "overridden_at": NOON.isoformat()}


@pytest.mark.parametrize(
    ("arguments", "change"),
    [
        (["pause", "emails"], Pause(ref=EMAILS)),
        (["resume", "emails"], Resume(ref=EMAILS)),
        (["limit", "emails", "20"], Override(ref=EMAILS, per_key=20)),
        (["limit", "emails", "0"], Override(ref=EMAILS, per_key=0)),
        (["limit", "emails", "--none"], Override(ref=EMAILS, per_key=None)),
        (["limit", "emails", "--reset"], Reset(ref=EMAILS)),
    ],
)
def test_change_of_a_queue_is_asked_for_and_shown(
    at_limits: Detent, known: FakeLimits, arguments: list[str], change: object
) -> None:
    assert at_limits("queues", *arguments).out == "emails is paused; limit: 9 (declared: 5); 3 running, 12 queued\n"
    assert known.changes == [change]
    assert at_limits("queues", *arguments, "--json").json["id"] == "queue_emails"


def test_limit_of_a_queue_is_shown_when_none_is_given(at_limits: Detent, known: FakeLimits) -> None:
    assert at_limits("queues", "limit", "task/hello").out == "task/hello is open; limit: none; 0 running, 0 queued\n"
    assert known.changes == []


def test_limits_are_listed_with_what_they_allow(at_limits: Detent) -> None:
    header, line = at_limits("limits", "list").out.splitlines()
    assert header.split() == ["LIMIT", "RUNNING", "QUEUED", "TOTAL", "PER", "KEY", "RATE", "STATE"]
    assert line.split() == ["openai", "14", "100", "25", "1", "500", "in", "1", "m", "0", "s", "open"]
    assert at_limits("limits", "list", "--json").json[0]["rate"] == {"limit": 500, "period": 60.0, "per_key": False}


def test_limit_is_shown_with_the_keys_that_have_bounds_of_their_own(at_limits: Detent) -> None:
    assert [line.split(maxsplit=1) for line in at_limits("limits", "show", "openai").out.splitlines()][-4:] == [
        ["total", "25"],
        ["per", "key      1"],
        ["rate", "500 in 1 m 0 s"],
        ["key", "user 7: 3, ends in 48 h 0 m"],
    ]


@pytest.mark.parametrize(
    ("arguments", "change"),
    [
        (["set", "openai", "--total", "50"], Override(ref=OPENAI, total=50)),
        (["set", "openai", "--total", "none", "--per-key", "2"], Override(ref=OPENAI, total=None, per_key=2)),
        (["set", "openai", "--key", "k", "--per-key", "3"], OverrideKey(ref=OPENAI, concurrency_key="k", per_key=3)),
        (
            ["set", "openai", "--key", "k", "--per-key", "0", "--ttl", "1d"],
            OverrideKey(ref=OPENAI, concurrency_key="k", per_key=0, ttl=timedelta(days=1)),
        ),
        (["reset", "openai"], Reset(ref=OPENAI)),
        (["reset", "openai", "--key", "k"], Reset(ref=OPENAI, concurrency_key="k")),
        (["pause", "openai"], Pause(ref=OPENAI)),
        (["resume", "openai"], Resume(ref=OPENAI)),
    ],
)
def test_change_of_a_limit_is_asked_for_and_shown(
    at_limits: Detent, known: FakeLimits, arguments: list[str], change: object
) -> None:
    assert at_limits("limits", *arguments).out.startswith("limit        openai\n")
    assert known.changes == [change]
    assert at_limits("limits", *arguments, "--json").json["id"] == "climit_openai"


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ([], []),
        (["50"], [Override(ref=ENVIRONMENT, total=50)]),
        (["--none"], [Override(ref=ENVIRONMENT, total=None)]),
        (["--pause"], [Pause(ref=ENVIRONMENT)]),
        (["10", "--resume"], [Override(ref=ENVIRONMENT, total=10), Resume(ref=ENVIRONMENT)]),
    ],
)
def test_environment_is_limited_paused_and_shown(
    at_limits: Detent, known: FakeLimits, arguments: list[str], changes: list[object]
) -> None:
    shown = at_limits("limits", "environment", *arguments)
    assert shown.out == '"dev" is open; limit: 50; 17 running, 112 queued\n'
    assert known.changes == changes
    assert at_limits("limits", "environment", *arguments, "--json").json["kind"] == "environment"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["queues", "limit", "emails", "5", "--reset"], "give one of N, --none and --reset"),
        (["limits", "set", "openai"], "there is nothing to set: give --total, --per-key, or both"),
        (["limits", "set", "openai", "--total", "many"], "--total 'many' must be a number of runs, or none"),
        (["limits", "set", "openai", "--total", "5", "--ttl", "1d"], "give --key, too"),
        (["limits", "set", "openai", "--key", "k"], "--key goes with a number as --per-key"),
        (["limits", "set", "openai", "--key", "k", "--per-key", "none"], "--key goes with a number as --per-key"),
        (["limits", "set", "openai", "--key", "k", "--per-key", "1", "--total", "5"], "and without --total"),
        (["limits", "environment", "5", "--none"], "give one of N and --none"),
        (["limits", "environment", "--pause", "--resume"], "give one of --pause and --resume"),
    ],
)
def test_call_that_makes_no_sense_is_a_sentence(
    at_limits: Detent, known: FakeLimits, arguments: list[str], why: str
) -> None:
    done = at_limits(*arguments)
    assert done.code == 2
    assert why in done.err
    assert known.changes == []


def test_queue_or_limit_that_is_not_there_is_a_sentence(at_limits: Detent) -> None:
    assert at_limits("queues", "limit", "nothing").err.startswith('error: there is no queue "nothing"')
    assert at_limits("limits", "show", "nothing").err.startswith('error: there is no concurrency limit "nothing"')


def test_empty_lists_say_so(at_limits: Detent, known: FakeLimits) -> None:
    known.records.clear()
    assert at_limits("queues", "list").out.startswith('there is no queue in environment "dev" yet')
    assert at_limits("limits", "list").out == 'no worker has registered a limit in environment "dev"\n'
