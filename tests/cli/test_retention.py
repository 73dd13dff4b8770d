from __future__ import annotations

import pytest

from detent import Retention
from detent.engine.backend import connect
from detent.protocol.registration import WorkerRegistration
from tests.cli.conftest import Detent


@pytest.fixture
async def rules(dsn: str) -> None:
    backend = connect(dsn)
    retention = Retention(default=None, tasks={"noisy": {"FAILED": "30d"}})
    await backend.register_worker(WorkerRegistration(tasks=(), retention=retention.rules()))
    await backend.close()


@pytest.mark.usefixtures("rules")
def test_rules_and_partitions_are_shown(at_database: Detent) -> None:
    header, default, special, empty, *partitions = at_database("retention").out.splitlines()
    assert header.split() == ["TASK", "STATUS", "KEPT"]
    assert default.split() == ["any", "any", "for", "ever"]
    assert special.split() == ["noisy", "FAILED", "30", "d"]
    assert empty == ""
    assert partitions[0].split() == ["PARTITION", "KEPT", "FROM", "UNTIL", "GOES", "ROWS", "SIZE"]
    (held,) = [line.split() for line in partitions if line.startswith("history_held")]
    assert held[:4] == ["history_held", "as", "needed", "0"]


@pytest.mark.usefixtures("rules")
def test_programs_get_both_as_json(at_database: Detent) -> None:
    found = at_database("retention", "--json").json
    assert found["rules"][1] == {"task_id": "noisy", "status": "FAILED", "keep_days": 30}
    assert {"name", "keep_days", "starts_at", "ends_at", "goes_at", "rows", "bytes"} == set(found["partitions"][0])


def test_without_rules_it_says_what_holds(at_database: Detent) -> None:
    said = at_database("retention").out.splitlines()[0]
    assert said == 'no worker has said how long runs of environment "dev" are kept: 30 days'
