"""The supervisor with real runner processes."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from detent.engine.backend import EngineBackend, connect
from detent.errors import ConfigError
from detent.protocol import ids
from detent.protocol.envvars import EnvVarValue, PutMode
from detent.protocol.ids import RunId
from detent.protocol.run_error import ErrorCode
from detent.protocol.runs import RunOutcome
from detent.protocol.status import RunStatus
from detent.protocol.triggering import TriggerRequest
from detent.worker import cgroups, renewing, variables_reading, vigil
from detent.worker import child as child_module
from detent.worker.settings import WorkerSettings
from detent.worker.supervisor import Supervisor
from detent.worker.telling import EventKind, WorkerEvent
from tests.database import Clock
from tests.nursery import Nursery
from tests.pooler import direct

ROOT = Path(__file__).parents[2]
TASKS = str(Path(__file__).parent / "project_tasks.py")
COMMAND = (
    sys.executable,
    "-c",
    "from detent.worker import process; from detent.engine.backend import connect;"
    "process.main(lambda settings: connect(settings.database_url, environment=settings.environment))",
)
IMPATIENT = (*COMMAND[:2], f"from detent.worker import overrun; overrun.END_GRACE = 0.2; {COMMAND[2]}")
"""Runners that soon give up code that does not end."""
PATIENCE = 30.0


class House:
    """A supervisor at work, its runners, and somebody who triggers."""

    def __init__(self, settings: WorkerSettings, backend: EngineBackend, command: Sequence[str] = COMMAND) -> None:
        self.backend = backend
        self.events: list[WorkerEvent] = []
        self._news = asyncio.Event()
        self.supervisor = Supervisor(settings, backend, command, on_event=self._hear)

    def _hear(self, event: WorkerEvent) -> None:
        self.events.append(event)
        self._news.set()

    async def heard(self, kind: EventKind, *, run_id: str = "", count: int = 1) -> list[WorkerEvent]:
        async with asyncio.timeout(PATIENCE):
            while len(found := [e for e in self.events if e.kind is kind and run_id in e.run_id]) < count:
                self._news.clear()
                await self._news.wait()
        return found

    def pids(self) -> list[int]:
        return [
            child.pid for child in self.supervisor._children if child.is_up and child.is_alive and not child.is_solo
        ]

    def spares(self) -> list[int]:
        """Processes that are ready for a run of their own."""
        return [
            child.pid
            for child in self.supervisor._children
            if child.is_spare and child.is_up and child.is_alive and child.has_room and not child.is_leaving
        ]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when *condition* holds; looked at when a process is up or has ended."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.supervisor._news.clear()
                await self.supervisor._news.wait()

    async def end_of_process(self, pid: int) -> None:
        await self.until(lambda: pid not in {child.pid for child in self.supervisor._children if child.is_alive})

    async def spare(self, *, but: Collection[int] = ()) -> int:
        """Return a process that is ready for a run of its own, another than *but*."""
        await self.until(lambda: bool(set(self.spares()) - set(but)))
        (pid,) = set(self.spares()) - set(but)
        return pid

    async def trigger(self, task_id: str, payload: object = None, **options: str) -> RunId:
        request = TriggerRequest(
            run_id=ids.new_run_id(),
            task_id=task_id,
            payload=None if payload is None else json.dumps(payload),
            is_watched=True,
            **options,  # type: ignore[arg-type]
        )
        await self.backend.trigger([request])
        return request.run_id

    async def end_of(self, run_id: RunId) -> RunOutcome:
        async with asyncio.timeout(PATIENCE), self.backend.listen() as wakes:
            (outcome,) = await self.backend.watch_runs([run_id])
            while outcome is None:
                await anext(wakes)
                (outcome,) = await self.backend.watch_runs([run_id])
        return outcome

    async def status(self, run_id: RunId) -> RunStatus:
        (record,) = await self.backend.retrieve_runs([run_id])
        assert record is not None
        return record.status


StartHouse = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def start_house(dsn: str, nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> StartHouse:
    monkeypatch.setattr(child_module, "subprocess", nursery.runners)

    @asynccontextmanager
    async def start(*, runners: int = 1, command: Sequence[str] = COMMAND, **settings: object) -> AsyncIterator[House]:
        backend = connect(dsn, listen_url=direct(dsn))
        told: dict[str, object] = {
            "sources": (TASKS,),
            "folder": str(ROOT),
            "send_events": True,
            "grace": 0.2,
        } | settings
        house = House(WorkerSettings(database_url=dsn, runners=runners, **told), backend, command)  # type: ignore[arg-type]
        ticker = asyncio.create_task(backend.maintenance.run())
        serving = asyncio.create_task(house.supervisor.run())
        try:
            await house.heard(EventKind.UP, count=runners)
            yield house
        finally:
            house.supervisor.interrupted()
            await serving
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)
            assert await backend.list_sessions() == []
            await backend.close()

    return start


async def test_runners_execute_and_end_with_their_supervisor(start_house: StartHouse) -> None:
    async with start_house(runners=2) as house:
        outcome = await house.end_of(await house.trigger("pid"))
        pids = house.pids()
    assert outcome.output is not None
    assert int(outcome.output) in pids
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_a_runner_that_is_killed_is_replaced_and_its_run_starts_again(
    start_house: StartHouse, tmp_path: Path
) -> None:
    async with start_house() as house:
        run_id = await house.trigger("marks_then_hangs", str(tmp_path / "mark"))
        await house.heard(EventKind.STARTED, run_id=run_id)
        (pid,) = house.pids()
        os.kill(pid, signal.SIGKILL)
        outcome = await house.end_of(run_id)
        (record,) = await house.backend.retrieve_runs([run_id])
    assert record is not None
    assert (outcome.output, record.attempt, record.losses) == ('"second time"', 1, 1)


async def test_a_waiting_run_survives_the_death_of_its_runner(start_house: StartHouse, clock: Clock) -> None:
    async with start_house() as house:
        run_id = await house.trigger("waits_then_pid")
        await house.heard(EventKind.WAITING, run_id=run_id)
        (pid,) = house.pids()
        os.kill(pid, signal.SIGKILL)
        await house.heard(EventKind.UP, count=2)
        clock.advance(timedelta(hours=2))
        outcome = await house.end_of(run_id)
    assert outcome.status is RunStatus.COMPLETED
    assert outcome.output != str(pid)


async def test_isolated_tasks_have_processes_of_their_own(start_house: StartHouse) -> None:
    async with start_house() as house:
        outcomes = [await house.end_of(await house.trigger("alone")) for _ in range(2)]
        pids = [str(pid) for pid in house.pids()]
    outputs = [outcome.output for outcome in outcomes]
    assert len({*outputs, *pids}) == 3


async def test_an_isolated_run_finds_a_process_that_is_ready_and_ends_with_it(start_house: StartHouse) -> None:
    async with start_house() as house:
        ready = await house.spare()
        outcome = await house.end_of(await house.trigger("alone"))
        next_ready = await house.spare(but=[ready])
        await house.end_of_process(ready)
        again = await house.end_of(await house.trigger("alone"))
    assert (outcome.output, again.output) == (str(ready), str(next_ready))


async def test_the_next_process_is_ready_while_the_first_executes_and_each_has_one_run(
    start_house: StartHouse, tmp_path: Path
) -> None:
    gates = [tmp_path / "first", tmp_path / "second"]
    async with start_house() as house:
        pids, runs = [await house.spare()], list[RunId]()
        for gate in gates:
            os.mkfifo(gate)
            runs.append(await house.trigger("reads_alone", str(gate)))
            pids.append(await house.spare(but=pids))
        for gate in gates:
            await asyncio.to_thread(gate.write_text, "opened")
        outcomes = [await house.end_of(run_id) for run_id in runs]
    assert [outcome.output for outcome in outcomes] == [str(pid) for pid in pids[:2]]


async def test_process_that_is_kept_alive_executes_so_many_runs_one_after_the_other(start_house: StartHouse) -> None:
    async with start_house(process_keep_alive=2, solo_limit=1) as house:
        pids = [(await house.end_of(await house.trigger("alone"))).output for _ in range(4)]
    assert pids[0] == pids[1]
    assert pids[2] == pids[3] != pids[0]


async def test_process_that_is_held_to_a_machine_is_not_kept_alive(
    start_house: StartHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "find", lambda: None)
    async with start_house(process_keep_alive=2, solo_limit=1) as house:
        pids = [(await house.end_of(await house.trigger("alone", machine="small-1x"))).output for _ in range(2)]
    assert pids[0] != pids[1]


async def test_a_spare_process_is_no_runner_and_is_replaced_when_it_dies(start_house: StartHouse) -> None:
    async with start_house() as house:
        (runner,) = house.pids()
        ready = await house.spare()
        outcomes = [await house.end_of(await house.trigger("pid")) for _ in range(4)]
        os.kill(ready, signal.SIGKILL)
        another = await house.spare(but=[ready])
        outcomes.append(await house.end_of(await house.trigger("alone")))
    assert [outcome.output for outcome in outcomes] == [str(runner)] * 4 + [str(another)]


async def test_isolated_runs_beyond_the_limit_take_their_turn(start_house: StartHouse) -> None:
    async with start_house(solo_limit=1) as house:
        runs = [await house.trigger("alone") for _ in range(3)]
        outputs = {(await house.end_of(run_id)).output for run_id in runs}
    assert len(outputs) == 3


PROCESS_TASK = "from detent import task\n@task(isolation='process')\ndef alone() -> str:\n    return 'first'\n"


async def test_a_process_is_ready_after_a_reload_too_with_the_new_code(start_house: StartHouse, tmp_path: Path) -> None:
    source = tmp_path / "changing.py"
    source.write_text(PROCESS_TASK)
    async with start_house(sources=(str(source),)) as house:
        before = await house.spare()
        source.write_text(PROCESS_TASK.replace("first", "second"))
        assert await house.supervisor.reload()
        after = await house.spare(but=[before])
        outcome = await house.end_of(await house.trigger("alone"))
        await house.end_of_process(before)
    assert outcome.output == '"second"'
    assert not psutil.pid_exists(after)


async def test_no_process_is_kept_ready_for_code_that_wants_none(start_house: StartHouse, tmp_path: Path) -> None:
    source = tmp_path / "changing.py"
    source.write_text(PROCESS_TASK)
    async with start_house(sources=(str(source),)) as house:
        await house.spare()
        source.write_text(PROCESS_TASK.replace("isolation='process'", ""))
        assert await house.supervisor.reload()
        await house.until(lambda: not any(child.is_solo and child.is_alive for child in house.supervisor._children))


async def test_code_that_does_not_load_costs_no_replacement(start_house: StartHouse, tmp_path: Path) -> None:
    source = tmp_path / "breaking.py"
    source.write_text(good := "from detent import task\n@task\nasync def steady() -> int:\n    return 1\n")
    async with start_house(sources=(str(source),)) as house:
        source.write_text("import nothing_of_this_name\n")
        assert not await house.supervisor.reload()
        source.write_text(good)
        for ups in (2, 3):
            (pid,) = house.pids()
            os.kill(pid, signal.SIGKILL)
            await house.heard(EventKind.UP, count=ups)
        assert (await house.end_of(await house.trigger("steady"))).output == "1"


async def test_all_on_the_cpu_of_a_dead_process_start_alone_and_the_others_among_others(
    start_house: StartHouse, tmp_path: Path
) -> None:
    async with start_house() as house:
        (pid,) = house.pids()
        hanging = await house.trigger("marks_then_hangs", str(tmp_path / "hang"))
        await house.heard(EventKind.STARTED, run_id=hanging)
        spinning = []
        for pipe in (tmp_path / "first", tmp_path / "second"):
            os.mkfifo(pipe)
            spinning.append(await house.trigger("tells_then_spins", str(pipe)))
            await asyncio.to_thread(pipe.read_text)
        os.kill(pid, signal.SIGKILL)
        outputs = [(await house.end_of(run_id)).output for run_id in spinning]
        assert (await house.end_of(hanging)).output == '"second time"'
        suspected = {event.run_id for event in await house.heard(EventKind.SUSPECTED, count=2)}
        pids = {str(pid), *map(str, house.pids())}
    assert suspected == set(spinning)
    assert len({*outputs, *pids}) == 2 + len(pids)


CRASHING = """
import os
import shutil
from detent import Context, Retry, task

@task(retry=Retry(max_attempts=2, min_timeout="50ms", max_timeout="50ms"))
async def crashes_at_first(ctx: Context) -> int:
    if ctx.attempt.number == 1:
        os._exit(3)
    return os.getpid()
"""


async def test_a_run_that_crashed_is_retried_without_waiting_for_a_renewal(
    start_house: StartHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewing, "INTERVAL", 3600.0)
    source = tmp_path / "crashing.py"
    source.write_text(CRASHING)
    async with start_house(sources=(str(source),)) as house:
        run_id = await house.trigger("crashes_at_first")
        outcome = await house.end_of(run_id)
        (record,) = await house.backend.retrieve_runs([run_id])
        assert str(outcome.output) not in map(str, house.pids())
    assert record is not None
    assert (outcome.status, record.attempt) == (RunStatus.COMPLETED, 2)


async def test_a_runner_whose_run_does_not_end_is_replaced_and_ends_after_its_other_runs(
    start_house: StartHouse, tmp_path: Path, clock: Clock
) -> None:
    gates = {name: tmp_path / name for name in ("reads", "reads_then_waits")}
    async with start_house(command=IMPATIENT) as house:
        (old,) = house.pids()
        others = {}
        for name, gate in gates.items():
            os.mkfifo(gate)
            others[name] = await house.trigger(name, str(gate))
            await house.heard(EventKind.STARTED, run_id=others[name])
        stuck = await house.trigger("swallows_its_end")
        assert (await house.end_of(stuck)).status is RunStatus.TIMED_OUT
        await house.heard(EventKind.UP, count=2)
        # It leases no more, and the one that takes over does, while it is still there for its other runs.
        (new,) = set(house.pids()) - {old}
        assert {(await house.end_of(await house.trigger("pid"))).output for _ in range(4)} == {str(new)}
        assert psutil.pid_exists(old)
        for gate in gates.values():
            await asyncio.to_thread(gate.write_text, "opened")
        assert (await house.end_of(others["reads"])).output == '"opened"'
        await house.heard(EventKind.WAITING, run_id=others["reads_then_waits"])
        await house.end_of_process(old)
        assert not psutil.pid_exists(old)
        assert await house.status(others["reads_then_waits"]) is RunStatus.WAITING
        gates["reads_then_waits"].unlink()
        gates["reads_then_waits"].touch()
        clock.advance(timedelta(hours=2))
        assert (await house.end_of(others["reads_then_waits"])).output == str(new)
        records = await house.backend.retrieve_runs(list(others.values()))
        assert [(record.attempt, record.losses) for record in records if record is not None] == [(1, 0), (1, 0)]


async def test_a_cancelled_run_that_holds_the_loop_costs_its_runner_at_once(
    start_house: StartHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vigil, "IGNORED", 0.1)
    async with start_house() as house:
        neighbour = await house.trigger("marks_then_hangs", str(tmp_path / "mark"))
        await house.heard(EventKind.STARTED, run_id=neighbour)
        holding = await house.trigger("holds_the_loop")
        await house.heard(EventKind.BLOCKING, run_id=holding)
        assert not any(event.kind is EventKind.RUNNER_KILLED for event in house.events)
        await house.backend.cancel_runs([holding], "enough")
        (killed,) = await house.heard(EventKind.RUNNER_KILLED)
        assert (await house.end_of(neighbour)).output == '"second time"'
        assert await house.status(holding) is RunStatus.CANCELED
    assert f"run {holding} was cancelled" in killed.detail


async def test_a_reload_changes_the_code_and_loses_no_run(
    start_house: StartHouse, tmp_path: Path, clock: Clock
) -> None:
    source = tmp_path / "changing.py"
    text = "from detent import task, wait\n@task\nasync def changing() -> str:\n    await wait.for_(hours=1)\n    return 'one'\n"
    source.write_text(text)
    async with start_house(sources=(str(source),)) as house:
        run_id = await house.trigger("changing")
        await house.heard(EventKind.WAITING, run_id=run_id)
        (before,) = house.pids()
        source.write_text(text.replace("one", "two"))
        assert await house.supervisor.reload()
        await house.heard(EventKind.HANDED_BACK, run_id=run_id)
        clock.advance(timedelta(hours=2))
        outcome = await house.end_of(run_id)
        assert before not in house.pids()
    assert outcome.output == '"two"'


async def test_code_that_does_not_load_is_told_and_the_old_code_stays(start_house: StartHouse, tmp_path: Path) -> None:
    source = tmp_path / "breaking.py"
    source.write_text("from detent import task\n@task\nasync def steady() -> int:\n    return 1\n")
    async with start_house(sources=(str(source),)) as house:
        before = house.pids()
        source.write_text("import nothing_of_this_name\n")
        assert not await house.supervisor.reload()
        (told,) = await house.heard(EventKind.NOT_RELOADED)
        outcome = await house.end_of(await house.trigger("steady"))
        assert house.pids() == before
    assert "breaking.py:1" in told.detail
    assert outcome.output == "1"


async def test_tasks_that_do_not_load_end_the_worker_with_a_sentence(dsn: str, tmp_path: Path) -> None:
    source = tmp_path / "broken.py"
    source.write_text("1 / 0\n")
    backend = connect(dsn, listen_url=direct(dsn))
    settings = WorkerSettings(database_url=dsn, sources=(str(source),), folder=str(ROOT))
    with pytest.raises(ConfigError, match=r"broken\.py:1.*ZeroDivisionError"):
        await Supervisor(settings, backend, COMMAND).run()
    await backend.close()


async def test_a_drain_lets_what_executes_end(start_house: StartHouse, tmp_path: Path) -> None:
    async with start_house(grace=PATIENCE) as house:
        os.mkfifo(tmp_path / "gate")
        run_id = await house.trigger("reads", str(tmp_path / "gate"))
        await house.heard(EventKind.STARTED, run_id=run_id)
        house.supervisor.drain()
        await asyncio.to_thread((tmp_path / "gate").write_text, "opened")
        outcome = await house.end_of(run_id)
    assert outcome.output == '"opened"'


async def test_a_second_interruption_hands_back_at_once(start_house: StartHouse, tmp_path: Path) -> None:
    async with start_house(grace=3600) as house:
        os.mkfifo(tmp_path / "never")
        run_id = await house.trigger("reads", str(tmp_path / "never"))
        await house.heard(EventKind.STARTED, run_id=run_id)
        house.supervisor.interrupted()
        # The second one comes as the house closes.
    backend = connect(house.supervisor._settings.database_url)
    (record,) = await backend.retrieve_runs([run_id])
    await backend.close()
    assert record is not None
    assert (record.status, record.attempt) == (RunStatus.QUEUED, 1)


@pytest.mark.parametrize("turns", range(8))
async def test_a_drain_that_comes_while_runners_are_started_reaches_them_all(dsn: str, turns: int) -> None:
    """At every turn of the loop between the first runner's process and the last one's channel."""
    backend = connect(dsn, listen_url=direct(dsn))
    settings = WorkerSettings(database_url=dsn, runners=2, sources=(TASKS,), folder=str(ROOT))
    supervisor = Supervisor(settings, backend, COMMAND)
    serving = asyncio.create_task(supervisor.run())
    for _ in range(turns):
        await asyncio.sleep(0)
    supervisor.drain()
    async with asyncio.timeout(PATIENCE):
        await serving
    await backend.close()


async def test_a_runner_that_cannot_be_started_is_tried_again(
    start_house: StartHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start_house() as house:
        (pid,) = house.pids()
        processes, failures = child_module.subprocess, [BlockingIOError(11, "no more processes")]
        start = processes.Popen
        monkeypatch.setattr(processes, "Popen", lambda *given, **named: _failing(failures) or start(*given, **named))
        os.kill(pid, signal.SIGKILL)
        await house.heard(EventKind.UP, count=2)
    assert not failures


def _failing(failures: list[BlockingIOError]) -> None:
    if failures:
        raise failures.pop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds what a process allocates")
async def test_a_run_is_held_to_its_machine_and_tried_again_on_a_larger_one(
    start_house: StartHouse, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "find", lambda: None)
    async with start_house() as house:
        outcome = await house.end_of(run_id := await house.trigger("hungry"))
        (record,) = await house.backend.retrieve_runs([run_id])
    assert record is not None
    assert (outcome.output, record.machine, record.attempt) == ('"512 MB on medium-1x"', "medium-1x", 2)
    assert [attempt.error and attempt.error.code for attempt in record.attempts] == [ErrorCode.OUT_OF_MEMORY, None]
    assert record.attempts[0].error is not None
    assert record.attempts[0].error.message.startswith('the run needed more than the 0.25 GB of machine "micro"')
    assert [record.message for record in caplog.records if "rlimits" in record.message] == [
        "runs are held to the memory of their machines by rlimits, each process by itself, and CPU is not limited, "
        "as this worker may not make cgroups; give it a folder of cgroup v2 to itself, with the controllers cpu and memory "
        "(systemd: Delegate=yes)"
    ]


async def test_a_run_that_is_killed_in_its_cgroup_was_out_of_memory(
    start_house: StartHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is no real cgroup: what would be held is written there, and the run plays the kernel."""
    written: list[dict[str, str]] = []

    def remove(folder: Path) -> None:
        written.append({file.name: file.read_text() for file in folder.iterdir()})
        shutil.rmtree(folder)

    monkeypatch.setattr(cgroups, "find", lambda: cgroups.Cgroups(tmp_path, remove))
    async with start_house() as house:
        outcome = await house.end_of(run_id := await house.trigger("killed_on_the_first"))
        (record,) = await house.backend.retrieve_runs([run_id])
    assert record is not None
    assert (outcome.output, record.attempt) == ('"medium-1x"', 2)
    assert [attempt.error and attempt.error.code for attempt in record.attempts] == [ErrorCode.OUT_OF_MEMORY, None]
    held = [limits for limits in written if limits]
    assert [(limits["memory.max"], limits["cpu.max"]) for limits in held] == [
        (str(256 * 1024**2), "25000 100000"),
        (str(2 * 1024**3), "100000 100000"),
    ]
    assert os.listdir(tmp_path) == []


async def test_runs_are_given_variables_and_what_changes_of_them_without_a_restart(
    start_house: StartHouse, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETENT_ENCRYPTION_KEY", base64.b64encode(b"k" * 32).decode())
    monkeypatch.setenv("OWN", "the worker's")
    monkeypatch.setattr(variables_reading, "INTERVAL", 0.01)
    caller = connect(dsn, listen_url=direct(dsn))

    async def put(**values: str) -> None:
        await caller.put_envvars([EnvVarValue(name=name, value=value) for name, value in values.items()], PutMode.SET)

    async def found(house: House) -> list[str | None]:
        return json.loads((await house.end_of(await house.trigger("variables"))).output or "")

    await put(A="first", B="first", OWN="not the worker's")
    async with start_house() as house:
        assert await found(house) == ["first", "first", "first", "the worker's"]
        await put(A="second")
        await caller.delete_envvars(["B"])
        async with asyncio.timeout(PATIENCE):
            while await found(house) != ["first", "second", None, "the worker's"]:
                pass
    await caller.close()
