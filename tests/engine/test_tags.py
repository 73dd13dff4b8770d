"""Tags that runs give themselves, and that others give them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from detent.engine.backend import connect
from detent.protocol import ids
from detent.protocol.fence import Stale
from detent.protocol.leases import Lease
from detent.protocol.tags import RunTagging, TagsAdded, TagsAddition
from tests.engine.stage import Stage, Worker, holder


async def add(stage: Stage, lease: Lease, *tags: str) -> TagsAdded | Stale:
    (answer,) = await stage.engine.add_tags([TagsAddition(holder=holder(lease), tags=tags)])
    return answer


async def test_tags_are_added_behind_those_that_are_there_and_once(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker, tags=("a", "b"))
    assert await add(stage, lease, "c", "a") == TagsAdded(count=3)
    assert (await stage.run(lease.run_id)).tags == ("a", "b", "c")


async def test_where_there_would_be_too_many_none_is_added(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker, tags=tuple("abcdefghi"))
    assert await add(stage, lease, "j", "k") == TagsAdded(count=11)
    assert (await stage.run(lease.run_id)).tags == tuple("abcdefghi")


async def test_two_additions_to_one_run_in_a_call_both_count(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await stage.engine.add_tags([TagsAddition(holder=holder(lease), tags=(tag,)) for tag in ("a", "b")])
    assert (await stage.run(lease.run_id)).tags == ("a", "b")


async def test_a_stale_run_gets_no_tags(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    assert await add(stage, replace(lease, fence=lease.fence + 1), "a") == Stale(run_id=lease.run_id)
    assert (await stage.run(lease.run_id)).tags == ()


@pytest.mark.parametrize("is_over", [False, True])
async def test_anybody_adds_tags_to_a_run_live_or_over(stage: Stage, worker: Worker, is_over: bool) -> None:
    lease = await stage.leased(worker, tags=("a", "b"))
    if is_over:
        await worker.succeed(lease)
    wanted = [RunTagging(run_id=lease.run_id, tags=("c", "a")), RunTagging(run_id=ids.new_run_id(), tags=("c",))]
    assert await stage.engine.tag_runs(wanted) == [TagsAdded(count=3), None]
    too_many = RunTagging(run_id=lease.run_id, tags=tuple("defghijkl"))
    assert await stage.engine.tag_runs([too_many]) == [TagsAdded(count=12)]
    assert (await stage.run(lease.run_id)).tags == ("a", "b", "c")


async def test_a_run_of_another_environment_is_not_tagged(stage: Stage, dsn: str) -> None:
    run_id = await stage.trigger()
    elsewhere = connect(dsn, environment="prod")
    assert await elsewhere.tag_runs([RunTagging(run_id=run_id, tags=("a",))]) == [None]
    await elsewhere.close()
