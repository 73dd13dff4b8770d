"""SIGSTOP for longer than a lease: of a runner, of a supervisor, of both."""

from __future__ import annotations

import signal

import pytest

from tests.acceptance.stage import Stage, WorkerProcess, until

pytestmark = pytest.mark.acceptance

RUNS = 40


async def test_runs_of_a_stopped_runner_are_recovered(stage: Stage) -> None:
    await stage.start_workers(2, "gated.py")
    worker = await _begin_runs(stage)
    victim = max(worker.runners(), key=lambda runner: len(_held_by(stage, {runner.pid})))
    victim.suspend()
    await until(lambda: not victim.is_running(), "the end of the stopped runner at the hands of its supervisor", 20)
    await _check_recovered(stage, {victim.pid})


async def test_runs_of_a_stopped_supervisor_are_recovered_and_its_runners_refused(stage: Stage) -> None:
    await stage.start_workers(2, "gated.py")
    worker = await _begin_runs(stage)
    stale = _pids(worker)
    worker.send(signal.SIGSTOP)
    await _all_begun_again(stage, stale)
    await _check_late_calls_are_refused(stage, stale)
    await _check_recovered(stage, stale)
    worker.send(signal.SIGCONT)
    await _check_works_again(stage, worker)


async def test_runs_of_a_worker_that_was_stopped_whole_are_recovered_and_it_works_again(stage: Stage) -> None:
    await stage.start_workers(2, "gated.py")
    worker = await _begin_runs(stage)
    runners = worker.runners()
    stale = {runner.pid for runner in runners}
    worker.send(signal.SIGSTOP)
    for runner in runners:
        runner.suspend()
    await _all_begun_again(stage, stale)
    for pid in stale:
        stage.open_gate(pid)
    for runner in runners:
        runner.resume()
    worker.send(signal.SIGCONT)
    await _check_recovered(stage, stale)
    await _check_works_again(stage, worker)


async def _begin_runs(stage: Stage) -> WorkerProcess:
    """Begin runs one after the other; return the worker that holds most of them."""
    for n in range(RUNS):
        handle = await stage.client.tasks.trigger("gated_parent", n)
        await until(lambda run_id=handle.id: bool(stage.ledger.of("begin", run_id)), "the begin of a run")
    return max(stage.workers, key=lambda worker: len(_held_by(stage, _pids(worker))))


def _pids(worker: WorkerProcess) -> set[int]:
    return {runner.pid for runner in worker.runners()}


def _held_by(stage: Stage, pids: set[int]) -> set[str]:
    return {effect.run for effect in stage.ledger.of("begin") if effect.pid in pids}


async def _all_begun_again(stage: Stage, stale: set[int]) -> None:
    """What the stale processes hold has been begun by others, who do not know that anybody else still executes it."""
    held = _held_by(stage, stale)
    assert held
    await until(lambda: held <= _begun_by_others(stage, stale), "the recovery of the runs")


def _begun_by_others(stage: Stage, stale: set[int]) -> set[str]:
    return {effect.run for effect in stage.ledger.of("begin") if effect.pid not in stale}


async def _check_late_calls_are_refused(stage: Stage, stale: set[int]) -> None:
    late = len(_held_by(stage, stale))
    for pid in stale:
        stage.open_gate(pid)
    await until(lambda: len(stage.ledger.of("refused")) == late, "the refusal of the late calls")
    assert {effect.detail for effect in stage.ledger.of("refused")} == {"StaleRunError"}
    assert stage.one("select count(*) from detent.history") == 0


async def _check_recovered(stage: Stage, stale: set[int]) -> None:
    stage.open_gate()
    await stage.all_over(2 * RUNS)
    rows = stage.query(
        "select status::text, attempt, output::integer from detent.history where task_id = 'gated_parent'"
    )
    assert len(rows) == RUNS
    assert {(status, attempt) for status, attempt, _ in rows} == {("COMPLETED", 1)}
    assert not stale & {pid for _, _, pid in rows}
    children = stage.query("select output::integer from detent.history where task_id = 'child'")
    assert sorted(n for (n,) in children) == list(range(RUNS)), "a late call made a child"
    await stage.check_nothing_left()


async def _check_works_again(stage: Stage, worker: WorkerProcess) -> None:
    """Alone: the other one is killed."""
    for other in stage.workers:
        if other is not worker:
            other.kill_all()
    await stage.client.tasks.batch_trigger("child", range(RUNS))
    await stage.all_over(3 * RUNS)
    await stage.check_nothing_left()
