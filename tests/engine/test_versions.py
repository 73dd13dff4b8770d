"""Which version of the code executes a run, and runs that wait for one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from detent.protocol.refusal import Refused
from detent.protocol.selection import RunSelection
from detent.protocol.status import RunStatus
from tests.engine.stage import Stage, Worker, limit, queue, request, task


async def two_versions(stage: Stage) -> tuple[Worker, Worker]:
    """The same task in an old and a new version, side by side."""
    return await stage.worker(task("work"), version="1"), await stage.worker(task("work", max_attempts=7), version="2")


# ---- what nobody has registered


@pytest.mark.parametrize(
    ("options", "missing", "code"),
    [
        ({"task_id": "unknown"}, {}, "TASK_NEVER_REGISTERED"),
        ({"queue": "emails"}, {"limits": [queue("emails")]}, "QUEUE_NOT_DECLARED"),
    ],
)
async def test_a_run_waits_for_a_version_until_one_registers_what_it_needs(
    stage: Stage, options: dict[str, Any], missing: dict[str, Any], code: str
) -> None:
    worker = await stage.worker("work")
    run_id = await stage.trigger(**options)
    record = await stage.run(run_id)
    assert record.waiting_reason is not None
    assert (record.status, record.waiting_reason.code) == (RunStatus.PENDING_VERSION, code)
    assert [listed.id for listed in await stage.engine.list_runs(RunSelection(statuses=(RunStatus.PENDING_VERSION,)))] == [
        run_id
    ]
    assert await worker.lease() == []
    new = await stage.worker("work", "unknown", **missing)
    assert await stage.status(run_id) is RunStatus.QUEUED
    assert [lease.run_id for lease in await new.lease()] == [run_id]


async def test_a_run_that_names_an_undeclared_limit_waits_until_one_is_declared(stage: Stage) -> None:
    worker = await stage.worker("work")
    run_id = await stage.trigger(limits=("gpu",))
    record = await stage.run(run_id)
    assert record.waiting_reason is not None
    assert record.waiting_reason.code == "LIMIT_NOT_DECLARED"
    assert record.status is RunStatus.PENDING_VERSION
    assert await worker.lease() == []
    new = await stage.worker("work", limits=[limit("gpu", total=1)])
    assert [lease.run_id for lease in await new.lease()] == [run_id]


async def test_a_task_that_holds_an_undeclared_limit_waits_until_one_is_declared(stage: Stage) -> None:
    worker = await stage.worker(task("work", limits=("gpu",)))
    run_id = await stage.trigger()
    assert await stage.status(run_id) is RunStatus.PENDING_VERSION
    assert await worker.lease() == []
    new = await stage.worker("other", limits=[limit("gpu", total=1)])
    assert await stage.status(run_id) is RunStatus.QUEUED
    assert await new.lease() == []
    assert [lease.run_id for lease in await worker.lease()] == [run_id]


async def test_runs_that_waited_for_a_version_come_oldest_first(stage: Stage) -> None:
    made = await stage.trigger_many(5)
    worker = await stage.worker("work")
    assert [lease.run_id for lease in await worker.lease()] == made


async def test_a_delayed_run_of_an_unknown_task_may_be_cancelled(stage: Stage) -> None:
    run_id = await stage.trigger(delay=timedelta(minutes=1))
    assert await stage.engine.cancel_runs([run_id], "enough") == [True]


# ---- pinned


async def test_a_pinned_run_is_executed_by_its_version_alone(stage: Stage) -> None:
    old, new = await two_versions(stage)
    run_id = await stage.trigger(version="1")
    assert await new.lease() == []
    assert (await old.lease_one()).run_id == run_id
    assert (await stage.run(run_id)).version == "1"


async def test_a_pinned_run_waits_for_a_worker_of_its_version_and_says_so(stage: Stage) -> None:
    old, new = await two_versions(stage)
    await old.end()
    run_id = await stage.trigger(version="1")
    assert await new.lease() == []
    reason = (await stage.run(run_id)).waiting_reason
    assert reason is not None
    assert (reason.code, reason.facts["version"]) == ("NO_LIVE_WORKER", "1")
    assert (await (await stage.session("1")).lease_one()).run_id == run_id


@pytest.mark.parametrize(
    ("version", "task_id", "code"), [("9", "work", "unknown_version"), ("1", "other", "unknown_task_in_version")]
)
async def test_a_version_that_lacks_the_task_is_refused(stage: Stage, version: str, task_id: str, code: str) -> None:
    await two_versions(stage)
    await stage.worker("other", version="3")
    (refused,) = await stage.engine.trigger([request(task_id, version=version)])
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (422, code)


# ---- begun


async def begun(stage: Stage, worker: Worker, how: str) -> str:
    """A run that a version has begun, and that is ready to go on."""
    lease = await stage.leased(worker)
    if how == "hand_back":
        await worker.hand_back(lease)
    elif how == "retry":
        await worker.fail(lease, retry_in=timedelta(0))
    else:
        await worker.sleep(lease, seconds=0.1)
        await stage.query("update detent.ready set resident_until = clock_timestamp()")
    await stage.a_moment_passes()
    return lease.run_id


@pytest.mark.parametrize("how", ["hand_back", "retry", "sleep"])
@pytest.mark.parametrize("key", [None, "a"])
async def test_a_version_goes_on_with_what_it_has_begun_while_it_lives(stage: Stage, how: str, key: str | None) -> None:
    old = await stage.worker(task("work"), version="1")
    run_id = await begun(stage, old, how)
    new = await stage.worker(task("work", max_attempts=7), version="2")
    assert await new.lease() == []
    assert (await old.lease_one()).run_id == run_id


@pytest.mark.parametrize("how", ["hand_back", "retry", "sleep"])
async def test_any_version_goes_on_with_a_run_whose_own_has_no_worker_any_more(stage: Stage, how: str) -> None:
    old = await stage.worker(task("work"), version="1")
    run_id = await begun(stage, old, how)
    new = await stage.worker(task("work", max_attempts=7), version="2")
    await old.end()
    lease = await new.lease_one()
    assert (lease.run_id, lease.version) == (run_id, "2")


async def test_a_run_that_has_not_begun_goes_to_whichever_version_has_room(stage: Stage) -> None:
    old, new = await two_versions(stage)
    await stage.trigger_many(4)
    assert [len(await each.lease(**{"async": 2})) for each in (new, old)] == [2, 2]


async def test_a_child_that_is_waited_for_prefers_the_version_of_its_parent(stage: Stage) -> None:
    old, new = await two_versions(stage)
    parent = await stage.leased(old)
    await old.call(parent)
    assert await new.lease() == []
    assert (await old.lease_one()).parent_run_id == parent.run_id


async def test_a_child_goes_to_any_version_when_that_of_its_parent_has_no_worker(stage: Stage) -> None:
    old, new = await two_versions(stage)
    parent = await stage.leased(old)
    await old.call(parent)
    await old.end()
    assert parent.run_id in {lease.parent_run_id for lease in await new.lease()}


async def test_two_versions_share_the_limits_of_their_tasks(stage: Stage) -> None:
    one = await stage.worker(task("work", limits=("db",)), limits=[limit("db", total=3)], version="1")
    two = await stage.worker(task("work", limits=("db",), max_attempts=7), limits=[limit("db", total=3)], version="2")
    await stage.trigger_many(6)
    leases = await one.lease(**{"async": 2})
    assert (len(leases), len(await two.lease())) == (2, 1)
    await one.fail(*leases, retry_in=timedelta(0))
    await stage.a_moment_passes()
    assert (len(await one.lease()), len(await two.lease())) == (2, 0)
