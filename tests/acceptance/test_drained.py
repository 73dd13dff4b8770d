"""SIGTERM, once and twice."""

from __future__ import annotations

import signal

import pytest

from tests.acceptance.ledger import Effect
from tests.acceptance.stage import Stage, WorkerProcess, until

pytestmark = pytest.mark.acceptance

RUNS = 40


async def test_drained_worker_ends_what_executes_and_leaves_what_waits(stage: Stage) -> None:
    worker = await _begun(stage)
    runners = {runner.pid for runner in worker.runners()}
    worker.send(signal.SIGTERM)
    await until(lambda: _held(stage, "WAITING") == 0, "the waiting runs to be forgotten")
    assert worker.is_alive
    await stage.client.tasks.trigger("gated", RUNS)
    stage.open_gate()
    assert await worker.ended() == 0
    rows = stage.query("select status::text, attempt, losses, output::integer from detent.history")
    assert sorted(rows) == sorted(("COMPLETED", 1, 0, effect.pid) for effect in _gated(stage))
    assert {effect.pid for effect in _gated(stage)} <= runners
    assert stage.query("select status::text, count(*) from detent.runs group by 1") == [
        ("QUEUED", 1),
        ("WAITING", RUNS),
    ]
    await _check_another_goes_on(stage)


async def test_drained_worker_hands_back_what_does_not_end_in_its_grace(stage: Stage) -> None:
    worker = await _begun(stage, "--grace", "0.5")
    worker.send(signal.SIGTERM)
    assert await worker.ended() == 0
    await _check_handed_back(stage)


async def test_second_sigterm_hands_everything_back_at_once(stage: Stage) -> None:
    worker = await _begun(stage)
    worker.send(signal.SIGTERM)
    await until(lambda: _held(stage, "WAITING") == 0, "the drain to begin")
    worker.send(signal.SIGTERM)
    assert await worker.ended(5) == 0
    await _check_handed_back(stage)


async def _begun(stage: Stage, *options: str) -> WorkerProcess:
    """A worker with runs that execute and runs that wait."""
    worker = await stage.start_worker("gated.py", options=options)
    await stage.client.tasks.batch_trigger("gated", range(RUNS))
    await stage.client.tasks.batch_trigger("waiting", range(RUNS))
    await until(lambda: len(stage.ledger.of("begin")) == 2 * RUNS, "the begin of every run")
    await until(lambda: _held(stage, "WAITING") == RUNS, "the waits")
    return worker


def _held(stage: Stage, status: str) -> int:
    return int(stage.one("select count(*) from detent.runs where status = %s and session_id is not null", (status,)))


def _gated(stage: Stage) -> list[Effect]:
    ended = {effect.run for effect in stage.ledger.of("end")}
    return [effect for effect in stage.ledger.of("begin") if effect.run in ended]


async def _check_handed_back(stage: Stage) -> None:
    """At its exit already: nobody has to wait for a lease to run out."""
    rows = stage.query(
        "select task_id, status::text, attempt, losses, session_id is null, count(*) from detent.runs group by 1, 2, 3, 4, 5"
    )
    assert sorted(rows) == [("gated", "QUEUED", 1, 0, True, RUNS), ("waiting", "WAITING", 1, 0, True, RUNS)]
    await _check_another_goes_on(stage)


async def _check_another_goes_on(stage: Stage) -> None:
    assert not stage.sessions()
    await stage.start_worker("gated.py")
    stage.open_gate()
    async with stage.hurrying():
        await stage.none_live()
    rows = stage.query("select distinct status::text, attempt from detent.history")
    assert rows == [("COMPLETED", 1)]
    await stage.check_nothing_left()
