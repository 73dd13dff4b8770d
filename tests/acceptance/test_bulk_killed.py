"""A bulk action whose process is killed in its midst is carried on by another, and acts on every run once."""

from __future__ import annotations

from pathlib import Path

import pytest

from detent import BulkRecord, BulkStatus
from detent.engine import faults
from tests.acceptance.stage import Stage, set_fault, until

pytestmark = pytest.mark.acceptance

MANY = 2_000
POINTS = {
    "cancel": ("reserve_bulk_action", "carry_bulk_cancel"),
    "replay": ("reserve_bulk_action", "find_bulk_runs", "trigger_runs", "advance_bulk_action"),
}


@pytest.mark.parametrize(("kind", "point"), [(kind, point) for kind, points in POINTS.items() for point in points])
async def test_every_run_is_acted_on_once_though_the_process_is_killed(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, point: str
) -> None:
    """The runs are of a task that no worker has: nothing else happens to them."""
    await stage.client.tasks.batch_trigger("of nobody", range(MANY))
    file = tmp_path / "fault"
    monkeypatch.setenv(faults.VARIABLE, f"@{file}")
    workers = await stage.start_workers(2, "many.py", runners=1)
    begin = stage.client.runs.bulk.cancel if kind == "cancel" else stage.client.runs.bulk.replay
    action = await begin(filter={"task_id": "of nobody"})
    set_fault(file, f"{point}:2:kill")

    await until(lambda: sum(worker.is_alive for worker in workers) == 1, "the death of a worker")
    record = await stage.client.runs.bulk.poll(action.id, timeout="60s")

    assert _counts(record) == (BulkStatus.COMPLETED, MANY, MANY, 0)
    if kind == "cancel":
        assert stage.query("select status::text, count(*) from detent.history group by 1") == [("CANCELED", MANY)]
        assert stage.is_idle()
    else:
        replays = "select count(*), count(distinct replay_of) from detent.inputs where replay_of is not null"
        assert stage.query(replays) == [(MANY, MANY)]
        assert stage.one("select count(*) from detent.runs") == 2 * MANY


def _counts(record: BulkRecord) -> tuple[BulkStatus, int, int, int]:
    return record.status, record.total, record.success, record.failure
