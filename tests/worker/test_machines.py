"""Machines of runs as their code meets them: told in the context, held, and what becomes of a run that ran out of memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from detent import Context, OutOfMemoryError, Retry, task
from detent.protocol import ids
from detent.protocol.execution import Isolation
from detent.protocol.leases import LeaseRequest
from detent.protocol.machines import PRESETS, Machine
from detent.protocol.run_error import ErrorCode, RunError
from detent.protocol.runs import RunOutcome
from detent.protocol.sessions import SessionEnd, SessionOpening
from detent.protocol.status import RunStatus
from detent.worker.control import Confined, Work
from tests.worker.conftest import StartRig
from tests.worker.rig import Rig

KILLED = RunError(name="killed", message="by SIGKILL")
BOX = Machine(cpu=2, memory_gb=3)
AT_ONCE = Retry(max_attempts=2, min_timeout="1ms", max_timeout="1ms")


class Holding:
    """A confinement that notes what it is asked for."""

    def __init__(self, *, has_killed: bool = False) -> None:
        self.has_killed = has_killed
        self.asked: list[Machine | None] = []

    def begin(self, machine: Machine) -> None:
        self.asked.append(machine)

    def end(self) -> None:
        self.asked.append(None)


def status_and_code(outcome: RunOutcome) -> tuple[RunStatus, str]:
    assert outcome.error is not None
    return outcome.status, outcome.error.code


# ---- which machine ----


async def test_the_machine_of_the_trigger_goes_before_that_of_the_task_and_of_the_config(start_rig: StartRig) -> None:
    async def told(ctx: Context) -> list[object]:
        return [] if ctx.machine is None else [ctx.machine.name, ctx.machine.cpu, ctx.machine.memory_gb]

    task(id="plain")(told)
    task(id="small", machine="micro")(told)
    async with start_rig(machine="gpu-box", machines={"gpu-box": BOX}) as rig:
        outputs = [
            (await rig.run("plain")).output,
            (await rig.run("small")).output,
            (await rig.run("small", machine="large-1x")).output,
        ]
    assert outputs == ['["gpu-box",2,3]', '["micro",0.25,0.25]', '["large-1x",4,8]']


async def test_a_run_without_a_machine_has_none(start_rig: StartRig) -> None:
    @task
    async def unlimited(ctx: Context) -> bool:
        return ctx.machine is None

    async with start_rig() as rig:
        assert (await rig.run("unlimited")).output == "true"


async def test_a_worker_that_does_not_know_the_machine_says_so(start_rig: StartRig) -> None:
    @task
    async def work() -> None: ...

    async with start_rig(machine="nowhere") as rig:
        outcome = await rig.run("work")
    assert status_and_code(outcome) == (RunStatus.SYSTEM_FAILURE, ErrorCode.MACHINE_NOT_FOUND)
    assert outcome.error is not None
    assert 'its worker knows no machine "nowhere"; name it in the config of the project (machines=)' in outcome.error.message


async def test_a_run_in_a_process_of_its_own_is_held_to_its_machine_until_its_code_has_ended(start_rig: StartRig) -> None:
    @task(machine="micro", isolation="process")
    def work() -> None: ...

    holding = Holding()
    async with start_rig(is_solo=True, confinement=holding) as rig:
        await rig.run("work")
        told = [message for message in rig.supervision.said if isinstance(message, Confined)]
    assert holding.asked == [PRESETS["micro"], None]
    assert told == [Confined(machine="micro", memory_gb=0.25)]


async def test_a_run_that_is_alone_because_its_process_died_is_held_to_nothing(start_rig: StartRig) -> None:
    @task(machine="micro")
    def work() -> None: ...

    holding = Holding()
    async with start_rig(is_solo=True, confinement=holding) as rig:
        run_id = await rig.trigger("work")
        await _die_with(rig)
        assert (await rig.end_of(run_id)).status is RunStatus.COMPLETED
    assert holding.asked == []


async def _die_with(rig: Rig) -> None:
    """Another runner leases the run, and dies while it is on the CPU."""
    session, version = ids.new_session_id(), (await rig.backend.list_tasks())[0].version
    await rig.backend.open_session(SessionOpening(session_id=session, version=version, worker="other"))
    (lease,) = await rig.backend.lease(LeaseRequest(session_id=session, fence=1, room={Isolation.THREAD: 1}))
    await rig.backend.end_session(SessionEnd(session_id=session, suspects=(lease.run_id,), error=KILLED))
    rig.runner.receive(Work())


# ---- out of memory ----


def fails(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize("error", [MemoryError(), ExceptionGroup("many", [ValueError(), MemoryError()])])
async def test_no_memory_left_on_its_machine_crashes_a_run_whatever_attempts_are_left(
    start_rig: StartRig, error: BaseException
) -> None:
    task(id="work", isolation="process", machine="micro", retry=AT_ONCE)(fails(error))
    async with start_rig(is_solo=True, confinement=Holding()) as rig:
        outcome = await rig.run("work")
    assert status_and_code(outcome) == (RunStatus.CRASHED, ErrorCode.OUT_OF_MEMORY)
    assert outcome.error is not None
    assert outcome.error.message.startswith('the run needed more than the 0.25 GB of machine "micro"; give its task')
    assert "MemoryError" in outcome.error.traceback


async def test_a_subprocess_that_was_killed_for_its_memory_crashes_the_run_that_fails_with_it(start_rig: StartRig) -> None:
    task(id="work", isolation="process", machine="micro")(fails(OSError("ffmpeg ended with -9")))
    async with start_rig(is_solo=True, confinement=Holding(has_killed=True)) as rig:
        outcome = await rig.run("work")
    assert status_and_code(outcome) == (RunStatus.CRASHED, ErrorCode.OUT_OF_MEMORY)


async def test_without_a_limit_it_is_an_error_like_others(start_rig: StartRig) -> None:
    task(id="work", machine="micro", retry=1)(fails(MemoryError("too much")))
    async with start_rig() as rig:
        outcome = await rig.run("work")
    assert status_and_code(outcome) == (RunStatus.FAILED, "")


async def test_a_run_may_say_itself_that_it_is_out_of_memory(start_rig: StartRig) -> None:
    asked: list[BaseException] = []
    failures: list[BaseException] = []
    called = asyncio.Event()
    work = task(id="work", retry=AT_ONCE)(fails(OutOfMemoryError("the model needs 40 GB")))

    @work.catch_error
    async def decide(error: BaseException) -> None:
        asked.append(error)

    @work.on_failure
    async def told(error: BaseException) -> None:
        failures.append(error)
        called.set()

    async with start_rig() as rig:
        outcome = await rig.run("work")
        await called.wait()
    assert status_and_code(outcome) == (RunStatus.CRASHED, ErrorCode.OUT_OF_MEMORY)
    assert outcome.error is not None
    assert outcome.error.message == "the model needs 40 GB"
    assert (asked, [type(error) for error in failures]) == ([], [OutOfMemoryError])
