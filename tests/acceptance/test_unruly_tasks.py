"""Tasks that do what no task should end as they deserve, and their neighbours in the same process end well."""

from __future__ import annotations

import pytest

from tests.acceptance.project.unruly import RAISED
from tests.acceptance.stage import Stage, until

pytestmark = pytest.mark.acceptance

NEIGHBOURS = 20


@pytest.mark.parametrize(
    ("task", "attempts", "code"),
    [
        ("exiting", 2, "TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE"),
        ("exiting_thread", 2, "TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE"),
        ("segfaulting", 1, "TASK_PROCESS_SIGSEGV"),
        ("killing_itself", 2, "TASK_PROCESS_MAYBE_OOM_KILLED"),
    ],
)
async def test_run_that_kills_its_process_crashes_alone(stage: Stage, task: str, attempts: int, code: str) -> None:
    run_id = await _among_neighbours(stage, task)
    await _ends(stage, task, "CRASHED", attempts, code)
    await _neighbours_end_well(stage)
    # Once among the others, and from then on alone.
    assert _executions(stage, run_id) == dict.fromkeys(range(1, attempts + 1), 1) | {1: 2}


@pytest.mark.parametrize("task", ["exiting", "exiting_alone_once"])
async def test_run_that_may_begin_only_once_crashes_with_its_process(stage: Stage, task: str) -> None:
    """Whether another run kills it or it does so itself."""
    once = await _among_neighbours(stage, "beginning_once")
    exiting = (await stage.client.tasks.trigger(task)).id
    await until(lambda: bool(_history(stage, task)), stage.describe)
    if task == "exiting":
        await _ends(stage, "beginning_once", "CRASHED", 1, "TASK_RUN_CRASHED")
    else:
        await _ends(stage, task, "CRASHED", 1, "TASK_RUN_CRASHED")
        assert _executions(stage, exiting) == {1: 1}
    await _neighbours_end_well(stage, others=2)
    assert _executions(stage, once) == {1: 1}


async def test_run_that_kills_its_process_unseen_is_found_among_all_that_executed(stage: Stage) -> None:
    run_id = await _among_neighbours(stage, "exiting_behind_its_back")
    stage.open_gate()
    await _ends(stage, "exiting_behind_its_back", "CRASHED", 1, "TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE")
    await _neighbours_end_well(stage)
    assert _executions(stage, run_id) == {1: 2}


async def test_run_that_kills_its_process_is_retried(stage: Stage) -> None:
    await _among_neighbours(stage, "exiting_at_first")
    await _ends(stage, "exiting_at_first", "COMPLETED", 2, None)
    await _neighbours_end_well(stage)


@pytest.mark.parametrize("task", ["holding_the_gil", "holding_the_gil_in_a_thread", "looping"])
async def test_run_that_holds_the_interpreter_is_timed_out(stage: Stage, task: str) -> None:
    run_id = await _among_neighbours(stage, task)
    await _ends(stage, task, "TIMED_OUT", 1, "MAX_DURATION_EXCEEDED")
    await _neighbours_end_well(stage)
    assert _executions(stage, run_id) == {1: 1}


async def test_runs_that_do_not_end_are_given_up_with_their_process_and_their_neighbours_stay(stage: Stage) -> None:
    """Out of time or cancelled, and still there: the runner is given up, once its neighbours have ended in it."""
    cancelled = await _among_neighbours(stage, "swallowing")
    for task in ("swallowing_in_overtime", "looping_in_a_thread"):
        await stage.client.tasks.trigger(task)
    await until(lambda: len(stage.ledger.of("begin")) == NEIGHBOURS + 3, "the others")
    await stage.client.runs.cancel(cancelled)
    for task in ("swallowing_in_overtime", "looping_in_a_thread"):
        await _ends(stage, task, "TIMED_OUT", 1, "MAX_DURATION_EXCEEDED")
    await _ends(stage, "swallowing", "CANCELED", 1, "TASK_RUN_CANCELLED")
    (runner,) = {effect.pid for effect in stage.ledger.of("begin")}
    await until(lambda: len(stage.runners()) == 2, "the runner that takes over")
    assert runner in {process.pid for process in stage.runners()}
    await _neighbours_end_well(stage, executions=1, others=3)
    await until(lambda: runner not in {process.pid for process in stage.runners()}, "the end of the runner")


async def test_run_in_a_process_of_its_own_crashes_or_times_out_alone(stage: Stage) -> None:
    exiting = await _among_neighbours(stage, "exiting_alone")
    looping = (await stage.client.tasks.trigger("looping_alone")).id
    await _ends(stage, "exiting_alone", "CRASHED", 2, "TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE")
    await _ends(stage, "looping_alone", "TIMED_OUT", 1, "MAX_DURATION_EXCEEDED")
    await _neighbours_end_well(stage, executions=1, others=2)
    assert (_executions(stage, exiting), _executions(stage, looping)) == ({1: 1, 2: 1}, {1: 1})


async def test_run_cannot_stop_the_loop(stage: Stage) -> None:
    await _among_neighbours(stage, "stopping_the_loop")
    await _ends(stage, "stopping_the_loop", "COMPLETED", 1, None)
    await _neighbours_end_well(stage, executions=1)


@pytest.mark.parametrize("task", ["raising", "raising_in_a_thread", "raising_in_a_task"])
async def test_run_may_raise_whatever_it_likes(stage: Stage, task: str) -> None:
    await _with_neighbours(stage)
    for what in RAISED:
        await stage.client.tasks.trigger(task, what)
    await until(lambda: len(_history(stage, task)) == len(RAISED), stage.describe)
    assert {(status, attempt) for status, attempt, _ in _history(stage, task)} == {("FAILED", 1)}
    await _neighbours_end_well(stage, executions=1, others=len(RAISED))


async def _with_neighbours(stage: Stage) -> None:
    await stage.start_worker("unruly.py", runners=1)
    await stage.client.tasks.batch_trigger("neighbour", range(NEIGHBOURS))
    await until(lambda: len(stage.ledger.of("begin")) == NEIGHBOURS, "the neighbours")


async def _among_neighbours(stage: Stage, task: str) -> str:
    """Start a run of *task* in a process that executes others, too; return its id."""
    await _with_neighbours(stage)
    handle = await stage.client.tasks.trigger(task)
    await until(lambda: bool(stage.ledger.of("begin", handle.id)), f"the begin of {task}")
    return handle.id


async def _ends(stage: Stage, task: str, status: str, attempt: int, code: str | None) -> None:
    await until(lambda: _history(stage, task) != [], lambda: f"the end of {task}: {stage.describe()}")
    ((found, number, error),) = _history(stage, task)
    assert (found, number, error) == (status, attempt, code)


def _history(stage: Stage, task: str) -> list[tuple[object, ...]]:
    return stage.query(
        "select status::text, attempt, error::json ->> 'code' from detent.history where task_id = %s", (task,)
    )


async def _neighbours_end_well(stage: Stage, *, executions: int | None = None, others: int = 1) -> None:
    """They had no part in it: no attempt was used up, each result counts once; `executions`: nor were they begun anew."""
    stage.open_gate()
    await stage.all_over(NEIGHBOURS + others)
    rows = stage.query("select output::integer, status::text, attempt from detent.history where task_id = 'neighbour'")
    assert sorted(rows) == [(n, "COMPLETED", 1) for n in range(NEIGHBOURS)]
    if executions is not None:
        ended = {(effect.run, effect.attempt) for effect in stage.ledger.of("end")}
        assert {stage.ledger.times("begin")[attempt] for attempt in ended} == {executions}
    await stage.check_nothing_left()


def _executions(stage: Stage, run_id: str) -> dict[int, int]:
    """How often each attempt was begun."""
    return {attempt: times for (run, attempt), times in stage.ledger.times("begin").items() if run == run_id}
