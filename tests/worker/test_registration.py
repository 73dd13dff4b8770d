"""What a worker makes known of its code."""

from __future__ import annotations

from typing import Any

import pytest

from detent import Concurrency, RateLimit, concurrency_limit, queue, task
from detent.protocol.flow import LimitDeclaration, LimitKind, Rate
from detent.worker.registration import registration_of
from detent.worker.settings import WorkerSettings


def settings(**given: Any) -> WorkerSettings:
    return WorkerSettings(database_url="", **given)


def test_every_queue_and_limit_that_is_declared_is_registered() -> None:
    openai = concurrency_limit("openai", total=25, rate=RateLimit(500, "1m"))
    queue("emails", concurrency_limit=5)
    queue("used-by-none")

    @task(queue="named-only", concurrency=[Concurrency(per_key=1), openai])
    async def summarize() -> None: ...

    @task
    async def free() -> None: ...

    registered = registration_of(settings(version="v2"))
    assert registered.version == "v2"
    assert [(found.task_id, found.queue, found.limits) for found in registered.tasks] == [
        ("free", "task/free", ()),
        ("summarize", "named-only", ("task/summarize", "openai")),
    ]
    assert registered.limits == (
        LimitDeclaration(kind=LimitKind.LIMIT, name="openai", total=25, rate=Rate(starts=500, period=60.0)),
        LimitDeclaration(kind=LimitKind.QUEUE, name="emails", per_key=5),
        LimitDeclaration(kind=LimitKind.QUEUE, name="used-by-none"),
        LimitDeclaration(kind=LimitKind.LIMIT, name="task/summarize", per_key=1),
    )


@pytest.mark.parametrize(
    ("own", "of_worker", "registered"),
    [(None, None, None), (None, 600.0, 600.0), ("1h", 600.0, 3600.0), (0, 600.0, None), (None, 0.0, None), ("1h", 0.0, 3600.0)],
)
def test_ttl_is_the_tasks_or_else_the_workers_and_nothing_switches_it_off(
    own: Any, of_worker: float | None, registered: float | None
) -> None:
    @task(ttl=own)
    async def charge() -> None: ...

    (found,) = registration_of(settings(ttl=of_worker)).tasks
    assert found.ttl == registered
