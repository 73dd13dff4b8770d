"""What goes wrong: processes of workers and of PostgreSQL are killed, stopped, drained, at random moments."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tests.acceptance.power import OwnServer
from tests.acceptance.stage import Stage, WorkerProcess

WORKERS, RUNNERS = 2, 2
GRACE = 1.0
LONGEST_PAUSE = 2.5
KEEP_EVERY = 0.1
TASKS = Path(__file__).parent / "tasks.py"


@dataclass(slots=True)
class Trouble:
    """`pids` were stopped, or lost their supervisor for a while: they may go on, not knowing that they hold nothing any more."""

    kind: str
    began: float = field(default_factory=time.time)
    ended: float | None = None
    pids: tuple[int, ...] = ()


class Troubles:
    def __init__(self, stage: Stage, power: OwnServer, rng: random.Random) -> None:
        self._stage, self._power, self._rng = stage, power, rng
        self._workers: list[WorkerProcess] = []
        self._database = asyncio.Lock()
        self._under_way: set[asyncio.Task[None]] = set()
        self.past: list[Trouble] = []
        self.failures: list[str] = []

    async def keep_workers(self) -> None:
        """Start workers in place of those that ended."""
        while True:
            self._workers = [worker for worker in self._workers if worker.is_alive]
            while len(self._workers) < WORKERS:
                words = ["worker", str(TASKS), "--runners", str(RUNNERS), "--grace", str(GRACE)]
                self._workers.append(self._stage.spawn(words))
            await asyncio.sleep(KEEP_EVERY)

    async def make(self) -> None:
        """Make trouble until cancelled; up to two at a time."""
        kinds = list(_KINDS)
        while True:
            await asyncio.sleep(self._rng.random() * LONGEST_PAUSE)
            if len(self._under_way) >= 2:
                continue
            kind = self._rng.choices(kinds, [weight for weight, _ in _KINDS.values()])[0]
            task = asyncio.create_task(self._carry_out(kind))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def over(self) -> None:
        """Return when what was stopped goes on."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def counts(self) -> dict[str, int]:
        return dict(sorted(Counter(trouble.kind for trouble in self.past).items()))

    async def _carry_out(self, kind: str) -> None:
        trouble = Trouble(kind)
        self.past.append(trouble)
        try:
            await _KINDS[kind][1](self, trouble)
        except (psutil.Error, OSError) as error:
            self.failures.append(f"{kind}: {error!r}")
        trouble.ended = time.time()

    # ---- of workers ----

    def _worker(self) -> WorkerProcess | None:
        alive = [worker for worker in self._workers if worker.is_alive]
        return self._rng.choice(alive) if alive else None

    def _runner(self) -> psutil.Process | None:
        found = [runner for worker in self._workers if worker.is_alive for runner in worker.runners()]
        return self._rng.choice(found) if found else None

    async def _kill_runner(self, trouble: Trouble) -> None:
        if (runner := self._runner()) is not None:
            with suppress(psutil.NoSuchProcess):
                runner.kill()

    async def _kill_supervisor(self, trouble: Trouble) -> None:
        if (worker := self._worker()) is not None:
            worker.kill()

    async def _kill_worker(self, trouble: Trouble) -> None:
        if (worker := self._worker()) is not None:
            worker.kill_all()

    async def _drain(self, trouble: Trouble) -> None:
        if (worker := self._worker()) is not None:
            worker.send(signal.SIGTERM)
            await self._until_dead(worker)

    async def _drain_at_once(self, trouble: Trouble) -> None:
        if (worker := self._worker()) is not None:
            trouble.pids = _pids(worker.processes())
            worker.send(signal.SIGTERM)
            await asyncio.sleep(self._rng.random() * GRACE)
            worker.send(signal.SIGTERM)
            await self._until_dead(worker)

    async def _until_dead(self, worker: WorkerProcess) -> None:
        end = time.monotonic() + 30
        while worker.is_alive:
            if time.monotonic() > end:
                self.failures.append(f"worker {worker.pid} does not end: {worker.text()[-2000:]}")
                worker.kill_all()
            await asyncio.sleep(KEEP_EVERY)

    async def _stop_runner(self, trouble: Trouble) -> None:
        if (runner := self._runner()) is not None:
            await self._stop_for_a_while(trouble, [runner])

    async def _stop_supervisor(self, trouble: Trouble) -> None:
        if (worker := self._worker()) is not None:
            trouble.pids = _pids(worker.processes())
            await self._stop_for_a_while(trouble, [psutil.Process(worker.pid)])

    async def _stop_worker(self, trouble: Trouble) -> None:
        if (worker := self._worker()) is not None:
            await self._stop_for_a_while(trouble, [psutil.Process(worker.pid), *worker.processes()])

    async def _stop_for_a_while(self, trouble: Trouble, processes: Sequence[psutil.Process]) -> None:
        trouble.pids += _pids(processes)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            await asyncio.sleep(self._rng.choice([0.3, 1.0, 5.0]))
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    # ---- of the database ----

    async def _kill_postgres(self, trouble: Trouble) -> None:
        async with self._database:
            await asyncio.to_thread(self._power.kill)
            await asyncio.sleep(self._rng.choice([0.0, 0.0, 1.0]))
            await asyncio.to_thread(self._power.start)

    async def _restart_postgres(self, trouble: Trouble) -> None:
        async with self._database:
            await asyncio.to_thread(self._power.shut_down)
            await asyncio.sleep(self._rng.choice([0.2, 1.0]))
            await asyncio.to_thread(self._power.start)

    async def _freeze_postgres(self, trouble: Trouble) -> None:
        async with self._database:
            await asyncio.to_thread(self._power.freeze)
            try:
                await asyncio.sleep(self._rng.choice([0.2, 1.0, 4.0]))
            finally:
                await asyncio.to_thread(self._power.thaw)


def _pids(processes: Sequence[psutil.Process]) -> tuple[int, ...]:
    return tuple(process.pid for process in processes)


_KINDS: dict[str, tuple[int, Callable[[Troubles, Trouble], Awaitable[None]]]] = {
    "runner killed": (6, Troubles._kill_runner),
    "supervisor killed": (3, Troubles._kill_supervisor),
    "worker killed": (3, Troubles._kill_worker),
    "worker drained": (2, Troubles._drain),
    "worker drained at once": (1, Troubles._drain_at_once),
    "runner stopped": (2, Troubles._stop_runner),
    "supervisor stopped": (2, Troubles._stop_supervisor),
    "worker stopped": (2, Troubles._stop_worker),
    "postgres killed": (1, Troubles._kill_postgres),
    "postgres restarted": (1, Troubles._restart_postgres),
    "postgres stopped": (1, Troubles._freeze_postgres),
}
