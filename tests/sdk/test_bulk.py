"""`runs.bulk`: what it asks for, on a real database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from detent import BulkKind, BulkStatus, NotFoundError, RunQuery, RunStatus, runs, tasks
from detent.engine.backend import connect
from detent.protocol import ids


async def carry_out(dsn: str) -> None:
    """What a worker does meanwhile."""
    engine = connect(dsn)
    maintenance = engine.maintenance
    while await maintenance.carry_on():
        pass
    await maintenance.close()
    await engine.close()


async def test_runs_of_a_filter_are_cancelled(home: str) -> None:
    made = await tasks.batch_trigger("charge", range(3), tags="old")
    other = await tasks.trigger("charge", 9)

    action = await runs.bulk.cancel(filter={"tags": "old", "period": "1h"}, name="clean up", reason="too old")
    await carry_out(home)
    record = await runs.bulk.poll(action.id, timeout="10s")

    assert (record.kind, record.status, record.name) == (BulkKind.CANCEL, BulkStatus.COMPLETED, "clean up")
    assert (record.total, record.success, record.failure) == (3, 3, 0)
    cancelled = await runs.retrieve(made.runs[0])
    assert cancelled.error is not None
    assert cancelled.error.message == "too old"
    assert (await runs.retrieve(other)).is_queued


async def test_named_runs_are_replayed(home: str) -> None:
    one, two = await tasks.trigger("charge", 1), await tasks.trigger("charge", 2)

    action = await runs.bulk.replay(run_ids=[one, two.id])
    await carry_out(home)

    assert (await runs.bulk.retrieve(action.id)).success == 2
    assert {run.replay_of for run in await runs.list()} == {None, one.id, two.id}


async def test_actions_are_listed_and_aborted(home: str) -> None:
    first, second = [await runs.bulk.cancel(filter={"task_id": name}) for name in ("a", "b")]

    assert (await runs.bulk.abort(first.id)).status is BulkStatus.ABORTED
    assert [action.id for action in await runs.bulk.list(limit=1)] == [second.id]
    assert [action.id async for action in runs.bulk.list(limit=1)] == [second.id, first.id]


async def test_wait_for_an_action_has_an_end(home: str) -> None:
    action = await runs.bulk.cancel(filter={"task_id": "a"})
    with pytest.raises(TimeoutError):
        await runs.bulk.poll(action.id, timeout="1ms")


def test_blocking_calls_do_the_same(home: str) -> None:
    tasks.sync.trigger("charge", 1)
    action = runs.sync.bulk.cancel(filter={"status": RunStatus.PENDING_VERSION})
    assert (action.total, runs.sync.bulk.retrieve(action.id)) == (1, action)


async def test_unknown_action_is_not_found(home: str) -> None:
    with pytest.raises(NotFoundError, match="there is no bulk action"):
        await runs.bulk.retrieve(ids.new_bulk_id())
    with pytest.raises(ValueError, match="is no bulk id"):
        await runs.bulk.abort("run_1")


BAD: dict[str, tuple[RunQuery, type[Exception], str]] = {
    "empty": ({}, ValueError, "selects every run"),
    "nothing in it": ({"task_id": ()}, ValueError, "selects every run"),
    "unknown field": ({"tag": "a"}, TypeError, "did you mean"),  # type: ignore[typeddict-unknown-key]
    "unknown status": ({"status": "FAILD"}, ValueError, 'did you mean "FAILED"'),
    "naive date": ({"created_before": datetime(2026, 1, 1)}, ValueError, "naive"),
    "both": ({"created_after": datetime.now(UTC), "period": timedelta(1)}, TypeError, "leave one of them out"),
    "batch": ({"batch_id": "run_1"}, ValueError, "is no batch id"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_filter_is_refused_at_the_call(name: str) -> None:
    query, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        runs.bulk.cancel(filter=query)


def test_action_is_about_a_filter_or_about_named_runs() -> None:
    for wrong in ({}, {"filter": {"task_id": "a"}, "run_ids": ["run_1"]}):
        with pytest.raises(TypeError, match="give one of the two"):
            runs.bulk.replay(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name at least one run"):
        runs.bulk.replay(run_ids=[])
    with pytest.raises(TypeError, match="put it into a list"):
        runs.bulk.replay(run_ids="run_1")
