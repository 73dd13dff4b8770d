"""The stage for acceptance tests: a database, worker processes on it, a ledger of what tasks did, and what must hold after.

    async with playing(nursery, dsn, folder) as stage:
        worker = await stage.start_worker()
        worker.runners()[0].kill()
        await stage.all_over(1000)
        stage.check_nothing_left()

Nothing here sleeps to give something time: `until` polls a condition against a deadline.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg

from detent import Client
from detent.protocol import ids
from tests.acceptance import ledger
from tests.acceptance.ledger import Ledger
from tests.nursery import PATH, Child, Nursery, runners_of, words_of
from tests.pooler import direct, variables

PROJECT = Path(__file__).parent / "project"

DEADLINE = 60.0
POLL = 0.02
HURRY_EVERY = 0.1
HURRY_BY = "5 minutes"
TAIL = 6_000


class WorkerProcess:
    """A `detent worker`, which is a supervisor, and the runners that it started."""

    def __init__(self, process: Child, log: Path) -> None:
        self._process, self.log = process, log
        self.pid = process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def runners(self) -> list[psutil.Process]:
        """Those that execute many runs: one that is killed with the run it is alone with uses up an attempt of it."""
        return [runner for runner in self.processes() if "alone" not in words_of(runner)]

    def processes(self) -> list[psutil.Process]:
        return runners_of(self.pid)

    def send(self, number: signal.Signals) -> None:
        if self.is_alive:
            self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()

    def kill_all(self) -> None:
        processes = self.processes()
        self.kill()
        for process in processes:
            _kill(process)

    async def ended(self, deadline: float = DEADLINE) -> int:
        await until(lambda: not self.is_alive, f"the end of worker {self.pid}", deadline)
        return self._process.wait()

    def text(self) -> str:
        return self.log.read_text(errors="replace")


class Stage:
    def __init__(self, nursery: Nursery, dsn: str, folder: Path) -> None:
        self._nursery, self.dsn, self.folder = nursery, dsn, folder
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.client = Client(database_url=dsn, listen_url=direct(dsn))
        self.workers: list[WorkerProcess] = []
        self._connection: psycopg.Connection[Any] | None = None

    # ---- workers ----

    async def start_worker(
        self, tasks: str = "load.py", *, runners: int = 2, options: Sequence[str] = ()
    ) -> WorkerProcess:
        (worker,) = await self.start_workers(1, tasks, runners=runners, options=options)
        return worker

    async def start_workers(
        self, count: int, tasks: str = "load.py", *, runners: int = 2, options: Sequence[str] = ()
    ) -> list[WorkerProcess]:
        """Start some and return when all their runners are up."""
        before = self.sessions()
        arguments = ["worker", str(PROJECT / tasks), "--runners", str(runners), *options]
        workers = [self.spawn(arguments) for _ in range(count)]
        await until(
            lambda: len(self.sessions() - before) >= runners * count or not all(worker.is_alive for worker in workers),
            "the workers' sessions",
        )
        for worker in workers:
            assert worker.is_alive, worker.text()
        return workers

    def spawn(self, arguments: Sequence[str], *, cwd: Path | None = None) -> WorkerProcess:
        """Start `detent` with these arguments, output to a log of its own."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        environment = os.environ | variables(self.dsn) | {"PYTHONPATH": PATH, ledger.VARIABLE: str(self.ledger.path)}
        with log.open("wb") as output:
            process = self._nursery.spawn(
                "tests.acceptance.hurried", arguments, folder=cwd or self.folder, environment=environment, output=output
            )
        self.workers.append(WorkerProcess(process, log))
        return self.workers[-1]

    def open_gate(self, pid: int | None = None) -> None:
        """Let the tasks of `gated.py` pass, those in one process or all."""
        (self.folder / ("gate-all" if pid is None else f"gate-{pid}")).touch()

    def runners(self) -> list[psutil.Process]:
        return [runner for worker in self.workers if worker.is_alive for runner in worker.runners()]

    async def kill_a_runner(self, rng: random.Random) -> None:
        found: list[psutil.Process] = []
        await until(lambda: found.extend(self.runners()) or bool(found), "a runner to kill")  # type: ignore[func-returns-value]
        _kill(rng.choice(found))

    def sessions(self) -> set[str]:
        """The sessions that are not ended."""
        return {str(row[0]) for row in self.query("select id from detent.sessions where ended_at is null")}

    # ---- the database, behind detent's back ----

    def query(self, statement: str, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Execute a statement, again when the connection was lost: whatever a test asks may be asked twice."""
        end = time.monotonic() + DEADLINE
        while True:
            try:
                cursor = self._connected().execute(statement.encode(), params)
                return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(POLL)

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.broken or self._connection.closed:
            self._connection = psycopg.connect(direct(self.dsn), autocommit=True, application_name="acceptance")
        return self._connection

    def one(self, statement: str, params: Sequence[object] = ()) -> Any:
        return self.query(statement, params)[0][0]

    @asynccontextmanager
    async def hurrying(self) -> AsyncIterator[None]:
        """Let the database's clock run three thousand times as fast, so that waits of an hour take a second."""
        task = asyncio.create_task(self._hurry())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _hurry(self) -> None:
        while True:
            self.query(f"update testing.clock set shift = shift + interval '{HURRY_BY}'")
            await asyncio.sleep(HURRY_EVERY)

    # ---- what must come, and hold ----

    async def all_over(self, runs: int, deadline: float = DEADLINE) -> None:
        """Return when so many runs have ended and none is left."""
        await until(lambda: self._is_over(runs), lambda: f"the end of {runs} runs: {self.describe()}", deadline)

    def _is_over(self, runs: int) -> bool:
        live, ended = self.query("select (select count(*) from detent.runs), (select count(*) from detent.history)")[0]
        return not live and ended >= runs

    async def none_live(self, deadline: float = DEADLINE) -> None:
        """Return when every run has ended."""
        await until(self.is_idle, self.describe, deadline)

    def is_idle(self) -> bool:
        return not self.one("select count(*) from detent.runs")

    def outcomes(self, which: str = "true", what: str = "status::text") -> list[tuple[str, str]]:
        """Something of each ended run, by its public id."""
        rows = self.query(f"select id, {what} from detent.history where {which}")
        return [(ids.encode("run", run_id), found) for run_id, found in rows]

    def describe(self) -> str:
        """Where the runs are, for a test that waited in vain."""
        live = self.query(
            "select task_id, status::text, attempt, count(*), bool_or(is_solo), bool_or(session_id is not null), min(id::text), "
            "count(*) filter (where exists (select from detent.ready where run_id = id)) "
            "from detent.runs group by 1, 2, 3 order by 4 desc limit 20"
        )
        ended = self.query("select task_id, status::text, count(*) from detent.history group by 1, 2")
        sessions = self.query(
            "select worker, beat, opened_at from detent.sessions where ended_at is null order by opened_at"
        )
        waits = self.query(
            "select runs.id::text, runs.session_id is not null, extract(epoch from runs.due_at - detent.now()), waits.operation, "
            "waitpoints.kind, waits.is_done, waitpoints.completed_at, batches.total, batches.finished, "
            "batches.aborted, (select count(*) from detent.batch_items where batch_id = batches.id), "
            "(select count(*) from detent.history where batch_id = batches.id) "
            "from detent.runs left join detent.waits on waits.run_id = runs.id "
            "left join detent.waitpoints on waitpoints.id = waits.waitpoint_id "
            "left join detent.batches on batches.id = waits.waitpoint_id where runs.status = 'WAITING' limit 10"
        )
        journal = self.query(
            "select run_id::text, attempt, number, journal.kind, operation, fingerprint, answers, seen, completed_at is not null "
            "from detent.journal left join detent.waitpoints on waitpoints.id = ref "
            "where run_id in (select id from detent.runs where status = 'WAITING' order by id limit 5) "
            "order by run_id, number limit 100"
        )
        parts = {"waits": waits, "journal": journal, "live": live, "ended": ended, "sessions": sessions}
        return "".join(f"\n{title}:\n" + "\n".join(map(str, rows)) for title, rows in parts.items())

    async def check_nothing_left(self) -> None:
        """Of runs that have ended only their history and logs may remain; of workers only the living."""
        await until(lambda: not self._left(), lambda: f"an empty database; left: {self._left()}", 20)
        doubles = self.query("select id, count(*) from detent.history group by id having count(*) > 1")
        assert not doubles, f"completed twice: {doubles}"

    def _left(self) -> dict[str, int]:
        tables = ("runs", "inputs", "ready", "waits", "journal", "endings", "final_hooks", "waitpoints", "batch_items")
        counts = {table: self.one(f"select count(*) from detent.{table}") for table in tables}
        counts["sessions of the dead"] = len(self._dead_sessions())
        return {name: count for name, count in counts.items() if count}

    def _dead_sessions(self) -> list[str]:
        rows = self.query("select worker from detent.sessions where ended_at is null")
        return [worker for (worker,) in rows if not psutil.pid_exists(int(worker.rpartition(":")[2]))]

    # ---- its end ----

    async def close(self) -> None:
        for worker in self.workers:
            worker.kill_all()
        await self.client.close()
        self.ledger.close()
        if self._connection is not None:
            self._connection.close()

    def print_logs(self) -> None:
        for worker in self.workers:
            print(f"--- {worker.log.name} (pid {worker.pid})\n{worker.text()[-TAIL:]}")


@asynccontextmanager
async def playing(nursery: Nursery, dsn: str, folder: Path) -> AsyncIterator[Stage]:
    stage = Stage(nursery, dsn, folder)
    try:
        yield stage
    finally:
        stage.print_logs()
        await stage.close()


async def until(condition: Callable[[], bool], what: str | Callable[[], str], deadline: float = DEADLINE) -> None:
    """Return when *condition* holds; fail naming *what* did not come in time."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline:g} s in vain for {what() if callable(what) else what}")
        await asyncio.sleep(POLL)


def set_fault(file: Path, fault: str) -> None:
    """Put a fault where processes look for one, at once: none may find half of it."""
    new = file.with_suffix(".new")
    new.write_text(fault)
    new.replace(file)


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()
