"""The machine of a run: as it was triggered, as its task says, and after it ran out of memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from detent.protocol import ids
from detent.protocol.attempts import Completed
from detent.protocol.execution import Isolation
from detent.protocol.flow import DebounceMode, Debouncing
from detent.protocol.refusal import Refused
from detent.protocol.run_error import ErrorCode, RunError
from detent.protocol.runs import ReplayRequest
from detent.protocol.status import RunStatus
from detent.protocol.triggering import Triggered
from tests.engine.stage import SOON, Stage, Worker, child, chunk, registration, request, task

OUT_OF_MEMORY = RunError(name=ErrorCode.OUT_OF_MEMORY, message="too small", code=ErrorCode.OUT_OF_MEMORY)
HEAVY = task("heavy", isolation=Isolation.PROCESS, machine="micro", oom_machine="large-1x")


@pytest.fixture
async def worker(stage: Stage) -> Worker:
    """A worker with tasks that run on a machine, with another for what runs out of memory and without, and an ordinary one."""
    return await stage.worker(HEAVY, task("fixed", isolation=Isolation.PROCESS, machine="micro"), "work")


# ---- what was asked for ----


async def test_a_run_is_leased_with_the_machine_of_its_trigger_and_read_with_that_of_its_task(
    stage: Stage, worker: Worker
) -> None:
    plain = await stage.leased(worker, "heavy")
    given = await stage.leased(worker, "heavy", machine="small-2x")
    assert [plain.machine, given.machine] == [None, "small-2x"]
    assert [(await stage.run(lease.run_id)).machine for lease in (plain, given)] == ["micro", "small-2x"]


async def test_a_run_of_a_task_without_a_machine_has_none(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.succeed(lease)
    assert (await stage.run(lease.run_id)).machine is None


async def test_the_machine_of_a_run_that_is_over_stays_known(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker, "heavy", machine="small-2x")
    await worker.succeed(lease)
    assert (await stage.run(lease.run_id)).machine == "small-2x"


async def test_children_and_items_of_batches_may_name_a_machine(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    await stage.engine.trigger_children([child(parent, "0", wait=False, machine="micro")])
    await stage.engine.trigger_batch(chunk(ids.new_batch_id(), [0], total=1, machine="small-1x"))
    assert {lease.machine for lease in await worker.lease()} == {"micro", "small-1x"}


async def test_a_trailing_debounce_replaces_the_machine(stage: Stage, worker: Worker) -> None:
    debounce = Debouncing(key="k", delay=SOON, mode=DebounceMode.TRAILING)
    first = await stage.trigger(debounce=debounce, machine="micro")
    await stage.trigger(debounce=debounce, machine="small-2x")
    assert (await stage.run(first)).machine == "small-2x"


@pytest.mark.parametrize("machine", ["small-2x", None])
async def test_a_replay_has_the_machine_that_the_original_was_given(
    stage: Stage, worker: Worker, machine: str | None
) -> None:
    original = await stage.leased(worker, machine=machine)
    await worker.succeed(original)
    await stage.engine.replay_runs([ReplayRequest(run_id=ids.new_run_id(), replay_of=original.run_id)])
    assert (await worker.lease_one()).machine == machine


async def test_a_machine_that_the_code_does_not_know_is_refused_beside_the_good(stage: Stage) -> None:
    await stage.engine.register_worker(replace(registration("work"), machines=("gpu-box",)))
    unknown, own, preset = await stage.engine.trigger([
        request(machine="gpu"), request(machine="gpu-box"), request(machine="micro"),
    ])  # fmt: skip
    assert isinstance(unknown, Refused)
    assert (unknown.status, unknown.code) == (422, "unknown_machine")
    assert unknown.message.startswith('task "work" has no machine "gpu"; known are gpu-box, large-1x')
    assert isinstance(own, Triggered)
    assert isinstance(preset, Triggered)


async def test_plain_sql_may_name_a_machine(stage: Stage, worker: Worker) -> None:
    await stage.query("""select detent.trigger('work', '{}', '{"environment": "test", "machine": "micro"}')""")
    ((machine,),) = await stage.query("select machine from detent.inputs")
    assert machine == "micro"


# ---- out of memory ----


async def test_a_run_that_ran_out_of_memory_is_tried_once_more_on_the_larger_machine(
    stage: Stage, worker: Worker
) -> None:
    first = await stage.leased(worker, "heavy")
    (answer,) = await worker.run_out_of_memory(first, error=OUT_OF_MEMORY)
    assert answer == Completed(run_id=first.run_id, status=RunStatus.QUEUED)
    await stage.a_moment_passes()
    second = await worker.lease_one()
    assert (second.run_id, second.attempt, second.machine) == (first.run_id, 2, "large-1x")
    (answer,) = await worker.run_out_of_memory(second, error=OUT_OF_MEMORY)
    assert answer == Completed(run_id=first.run_id, status=RunStatus.CRASHED)
    run = await stage.run(first.run_id)
    assert (run.status, run.attempt, run.machine, run.error) == (RunStatus.CRASHED, 2, "large-1x", OUT_OF_MEMORY)
    assert [attempt.error for attempt in run.attempts] == [OUT_OF_MEMORY] * 2


async def test_the_next_run_starts_on_the_machine_of_its_task_all_the_same(stage: Stage, worker: Worker) -> None:
    await worker.run_out_of_memory(await stage.leased(worker, "heavy"))
    await stage.a_moment_passes()
    await worker.succeed(await worker.lease_one())
    assert (await stage.leased(worker, "heavy")).machine is None


async def test_an_ordinary_failure_on_the_larger_machine_stays_there(stage: Stage, worker: Worker) -> None:
    await worker.run_out_of_memory(await stage.leased(worker, "heavy"))
    await stage.a_moment_passes()
    await worker.fail(await worker.lease_one(), retry_in=timedelta())
    await stage.a_moment_passes()
    assert (await worker.lease_one()).machine == "large-1x"


@pytest.mark.parametrize(
    ("task_id", "options"),
    [("fixed", {}), ("work", {}), ("heavy", {"machine": "large-1x"}), ("heavy", {"max_attempts": 1})],
)
async def test_without_a_machine_or_an_attempt_left_it_has_crashed(
    stage: Stage, worker: Worker, task_id: str, options: dict[str, object]
) -> None:
    lease = await stage.leased(worker, task_id, **options)
    assert await worker.run_out_of_memory(lease) == [Completed(run_id=lease.run_id, status=RunStatus.CRASHED)]


@pytest.mark.parametrize(
    ("task_id", "status"), [("heavy", RunStatus.QUEUED), ("fixed", RunStatus.CRASHED)]
)
async def test_a_process_that_was_killed_for_its_memory_counts_the_same(
    stage: Stage, worker: Worker, task_id: str, status: RunStatus
) -> None:
    lease = await stage.leased(worker, task_id)
    await worker.end(suspects=(lease.run_id,), error=OUT_OF_MEMORY)
    run = await stage.run(lease.run_id)
    assert (run.status, run.attempt) == (status, 2 if task_id == "heavy" else 1)
    assert (run.attempts[0].error if run.attempts else run.error) == OUT_OF_MEMORY
