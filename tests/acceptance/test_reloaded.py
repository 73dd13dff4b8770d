"""`detent dev` under load, while its code is saved again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.stage import Stage, WorkerProcess, until

pytestmark = pytest.mark.acceptance

CODE = """
from detent import Context, task, wait
from tests.acceptance.ledger import note
from tests.acceptance.project.gated import gated, waiting

@task
async def which(n: int) -> str:
    return "{edition}"

@task
async def parent(n: int, ctx: Context) -> str:
    note("begin", ctx)
    first = await which.call(n)
    await wait.for_(hours=1)
    second = await which.call(n)
    note("end", ctx)
    return first + second
"""
RUNS = 50


async def test_reload_loses_no_run_and_new_runs_get_the_new_code(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "shop.py"
    dev = await _serving(stage, file)
    await stage.client.tasks.batch_trigger("parent", range(RUNS))
    await stage.client.tasks.batch_trigger("gated", range(RUNS))
    await until(lambda: len(stage.ledger.of("begin")) == 2 * RUNS, "the begin of every run")
    await until(lambda: _waiting_for_time(stage) == RUNS, "the parents' waits")
    for edition in ("b", "c"):
        await _save(stage, dev, file, edition)
        assert await _which(stage) == edition
    stage.open_gate()
    async with stage.hurrying():
        await stage.none_live()
    rows = stage.query(
        "select distinct task_id, status::text, attempt, output from detent.history where task_id = 'parent'"
    )
    assert rows == [("parent", "COMPLETED", 1, '"ac"')]
    assert stage.one("select count(*) from detent.history where status = 'COMPLETED'") == 4 * RUNS + 2
    await stage.check_nothing_left()


async def test_code_that_does_not_load_changes_nothing(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "shop.py"
    dev = await _serving(stage, file)
    before = stage.sessions()
    file.write_text("this is no Python")
    await until(lambda: "cannot load" in dev.text(), "the complaint")
    assert await _which(stage) == "a"
    assert stage.sessions() == before
    await _save(stage, dev, file, "b")
    assert await _which(stage) == "b"


def _write(file: Path, edition: str) -> None:
    file.write_text(CODE.format(edition=edition))


async def _serving(stage: Stage, file: Path) -> WorkerProcess:
    _write(file, "a")
    dev = stage.spawn(["dev", str(file)])
    await until(lambda: len(stage.sessions()) == 2 or not dev.is_alive, "the runners")
    assert dev.is_alive, dev.text()
    return dev


async def _save(stage: Stage, dev: WorkerProcess, file: Path, edition: str) -> None:
    reloads = dev.text().count("reloaded:")
    old = stage.sessions()
    _write(file, edition)
    await until(lambda: dev.text().count("reloaded:") > reloads, "the reload")
    await until(lambda: not stage.sessions() & old, "the end of the old runners")


async def _which(stage: Stage) -> object:
    return (await stage.client.tasks.trigger_and_poll("which", 0, timeout=10)).output


def _waiting_for_time(stage: Stage) -> int:
    return int(stage.one("select count(*) from detent.waitpoints where kind = 'time' and completed_at is null"))
