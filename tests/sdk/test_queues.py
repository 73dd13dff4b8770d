"""`queues` names queues in every way, and asks a backend for what is wanted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from detent import ConflictError, NotFoundError, RetrievedQueue, queue, task, tasks
from detent.protocol.flow import Bound, LimitKind, LimitRef, Override, Pause, Reset, Resume
from detent.protocol.refusal import Refused
from detent.sdk.queues import Queues
from tests.sdk.fake_limits import FakeLimits, record

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)


def ref(name: str) -> LimitRef:
    return LimitRef(kind=LimitKind.QUEUE, name=name)


async def test_queue_is_read_with_what_goes_on_in_it() -> None:
    bound = Bound(base=5, override=9, overridden_at=NOON)
    known = FakeLimits(
        record(LimitKind.QUEUE, "emails", running=3, queued=12, paused_at=NOON, per_key=bound, most_queued=99),
        record(LimitKind.QUEUE, "task/send"),
    )
    queues = Queues(known.target)

    assert await queues.retrieve("emails") == RetrievedQueue(
        id="queue_emails",
        name="emails",
        type="custom",
        running=3,
        queued=12,
        paused=True,
        concurrency_limit=9,
        concurrency=bound,
        most_queued=99,
    )
    own = await queues.retrieve("task/send")
    assert (own.type, own.paused, own.concurrency_limit) == ("task", False, None)


async def test_queue_is_named_by_object_name_id_or_task() -> None:
    @task(id="send", queue="emails")
    async def send() -> None: ...

    known = FakeLimits()
    queues = Queues(known.target)
    for named in (
        queue("emails"),
        "emails",
        "queue_01h455vb4pex5vsknk084sn02q",
        "task/clean up",
        send,
        tasks.ref("send"),
    ):
        await queues.pause(named)

    names = ["emails", "emails", "queue_01h455vb4pex5vsknk084sn02q", "task/clean up", "task/send", "task/send"]
    assert known.changes == [Pause(ref=ref(name)) for name in names]


async def test_every_change_asks_for_what_it_says() -> None:
    known = FakeLimits(record(LimitKind.QUEUE, "emails"))
    queues = Queues(known.target)
    await queues.pause("emails")
    await queues.resume("emails")
    await queues.override_concurrency_limit("emails", 20)
    await queues.override_concurrency_limit("emails", None)
    changed = await queues.reset_concurrency_limit("emails")

    assert changed.name == "emails"
    assert known.changes == [
        Pause(ref=ref("emails")),
        Resume(ref=ref("emails")),
        Override(ref=ref("emails"), per_key=20),
        Override(ref=ref("emails"), per_key=None),
        Reset(ref=ref("emails")),
    ]


async def test_list_is_a_page_and_the_way_to_all_others() -> None:
    known = FakeLimits(*(record(LimitKind.QUEUE, f"q{number}") for number in range(5)), record(LimitKind.LIMIT, "l"))
    queues = Queues(known.target)

    page = await queues.list(page=2, per_page=2)
    assert [found.name for found in page] == ["q2", "q3"]
    assert page.has_next_page
    assert [found.name async for found in queues.list(per_page=2)] == ["q0", "q1", "q2", "q3", "q4"]
    assert known.pages == [(2, 2), (0, 2), (2, 2), (4, 2)]


@pytest.mark.parametrize("page", [{"page": 0}, {"per_page": 0}, {"per_page": 101}])
async def test_page_that_is_none_is_refused(page: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must be 1"):
        Queues(FakeLimits().target).list(**page)


async def test_queue_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFoundError, match='there is no queue "emails" in this environment') as refused:
        await Queues(FakeLimits().target).retrieve("emails")

    assert refused.value.code == "queue_not_found"


async def test_refusal_of_a_change_is_raised() -> None:
    known = FakeLimits()
    known.refusal = Refused(status=409, code="not_overridden", message="nothing is overridden")
    with pytest.raises(ConflictError, match="nothing is overridden"):
        await Queues(known.target).reset_concurrency_limit("emails")


@pytest.mark.parametrize(
    ("named", "error"), [(5, TypeError), (None, TypeError), ("", ValueError), ("limit/a", ValueError)]
)
async def test_what_names_no_queue_is_refused_at_the_call(named: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Queues(FakeLimits().target).pause(named)


async def test_bad_limit_is_refused_at_the_call() -> None:
    with pytest.raises(ValueError, match="concurrency_limit=-1 must be a whole number"):
        Queues(FakeLimits().target).override_concurrency_limit("emails", -1)


def test_blocking_twin_does_the_same() -> None:
    known = FakeLimits(record(LimitKind.QUEUE, "emails", queued=4))
    assert Queues(known.target).sync.retrieve("emails").queued == 4
    assert [found.name for found in Queues(known.target).sync.list()] == ["emails"]
