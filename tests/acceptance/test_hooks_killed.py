"""Final hooks are called whoever dies, and the code of their run is not executed again for them."""

from __future__ import annotations

import os
import signal

import pytest

from tests.acceptance.stage import Stage, until

pytestmark = pytest.mark.acceptance


async def test_hooks_of_a_runner_that_is_killed_among_them_are_called_elsewhere(stage: Stage) -> None:
    await stage.start_workers(2, "hooked.py")
    run_id = (await stage.client.tasks.trigger("praised", 5)).id
    await until(lambda: bool(stage.ledger.of("hook", run_id)), stage.describe)
    assert (await stage.client.runs.retrieve(run_id)).status == "COMPLETED"

    os.kill(stage.ledger.of("hook", run_id)[0].pid, signal.SIGKILL)
    await until(lambda: len(stage.ledger.of("hook", run_id)) == 2, stage.describe)
    stage.open_gate()
    await until(lambda: stage.query("select run_id from detent.final_hooks") == [], stage.describe)

    assert [effect.detail for effect in stage.ledger.of("hook", run_id)] == ["5", "5"]
    assert len(stage.ledger.of("hook end", run_id)) == 1
    assert len(stage.ledger.of("body", run_id)) == 1
    await stage.check_nothing_left()


async def test_a_waiting_run_that_is_cancelled_has_its_hooks_called(stage: Stage) -> None:
    await stage.start_worker("hooked.py")
    run_id = (await stage.client.tasks.trigger("patient")).id
    await until(lambda: stage.query("select id from detent.runs where status = 'WAITING'") != [], stage.describe)
    await stage.client.runs.cancel(run_id)
    await until(lambda: bool(stage.ledger.of("hook", run_id)), stage.describe)

    assert len(stage.ledger.of("body", run_id)) == 1
    assert (await stage.client.runs.retrieve(run_id)).status == "CANCELED"
