"""The process without user code: starts the runners, renews for them, passes wake-ups on, and buries them.

What executes is decided by the database and the runners alone: a supervisor that is gone takes its runners with it, and their
sessions run out. What is decided here has a module each: `solos` (processes for single runs), `renewing` (whose session),
`waking` (who hears of work), `variables_reading`, `vigil` (when a process must go), `reaper` (which other workers are lost),
`child` (who is to blame for a death). What is left is the life of the runners, from their start to their burial.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from detent.errors import ConfigError, DetentError
from detent.protocol import run_error
from detent.protocol.attempts import TimedOut
from detent.protocol.backend import WorkerBackend
from detent.protocol.fence import Holder
from detent.protocol.run_error import ErrorCode
from detent.protocol.sessions import SessionEnd
from detent.worker.child import Child
from detent.worker.children import Children
from detent.worker.control import (
    Announced,
    Confined,
    Drain,
    Finished,
    Happened,
    Load,
    Message,
    NotStarted,
    Poisoned,
    Report,
    Up,
)
from detent.worker.note import Noted
from detent.worker.persistence import pauses, persistently
from detent.worker.reaper import Reaping
from detent.worker.renewing import Renewing
from detent.worker.settings import WorkerSettings
from detent.worker.solos import Solos
from detent.worker.telling import EventKind, WorkerEvent
from detent.worker.variables_reading import VariablesReading
from detent.worker.vigil import Vigil
from detent.worker.waking import Waking

WATCH_INTERVAL = 0.25
LAST_CALLS = 5.0
"""How long ending sessions may take when the worker itself is ending."""
FAILED_STARTS = 5
"""Runners that may die in succession before any was up."""
EXIT_SECONDS = 5.0
"""From a runner's last word to its exit, by which it has exported what telemetry is left."""

log = logging.getLogger("detent.worker")


class Supervisor:
    """Decides how many runners there are, of which code, and what follows from the end of one."""

    def __init__(
        self,
        settings: WorkerSettings,
        backend: WorkerBackend,
        command: Sequence[str],
        *,
        on_event: Callable[[WorkerEvent], None] = lambda event: None,
    ) -> None:
        self._settings, self._backend, self._command, self._tell = settings, backend, tuple(command), on_event
        self._children = Children()
        self._newest = 0
        self._solos = Solos(self._children, self._add_solo, limit=self._solo_limit, spawn=self._spawn)
        self._vigil = Vigil(kill=self._kill, time_out=self._time_out, blocking=self._say_blocking)
        self._renewing = Renewing(backend, self._children, self._vigil, self._solos, tell=on_event)
        self._waking = Waking(backend, self._children, self._vigil)
        self._variables = VariablesReading(backend, self._children)
        self._reaping = Reaping(backend, self._children, self._solos)
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._is_ending = False
        self._failure: str | None = None
        self._reloading = asyncio.Lock()
        self._failed_starts = 0
        self._was_up = False
        self._news = asyncio.Event()

    # ---- life ----

    async def run(self) -> None:
        """Serve until drained. Raises `ConfigError` when the tasks do not load at the start."""
        # First of all: the code may need them when it is loaded.
        await self._unless_over(persistently(self._variables.read)())
        for _ in range(0 if self._is_ending else self._settings.runners):
            await self._add()
        for serve in (
            self._renewing.renew_forever,
            self._reaping.reap_forever,
            self._waking.listen_forever,
            self._watch_forever,
            self._variables.read_forever,
        ):
            self._spawn(serve())
        try:
            await self._over.wait()
        finally:
            await self._end()
        if self._failure is not None:
            raise ConfigError(self._failure)

    def drain(self) -> None:
        """Lease no more, let what executes end within the grace period, hand back the rest, then return from `run`."""
        self._is_ending = True
        for child in self._children:
            self._drain(child, self._settings.grace)
        self._check_over()

    def _drain(self, child: Child, grace: float) -> None:
        child.is_leaving = True
        child.send(Drain(grace=grace))

    def stop_now(self) -> None:
        """Kill the runners and hand everything back at once."""
        self._is_ending = True
        for child in self._children:
            child.kill()
        self._check_over()

    def interrupted(self) -> None:
        """What a first SIGTERM or SIGINT asks for, and a second."""
        if self._is_ending:
            self.stop_now()
        else:
            self.drain()

    async def reload(self, settings: WorkerSettings | None = None) -> bool:
        """Replace the code without losing a run: new runners first, then the old ones drain. False when it does not load.

        With *settings*, they replace the old ones, too.
        """
        async with self._reloading:
            is_loaded = await self._reload(settings)
        await self._solos.staff()
        return is_loaded

    async def _reload(self, settings: WorkerSettings | None) -> bool:
        if self._is_ending:
            return False
        before = self._settings
        self._settings = settings or before
        self._newest += 1
        new = [await self._add(generation=self._newest) for _ in range(self._settings.runners)]
        while any(child.is_alive and not child.is_up for child in new):
            self._news.clear()
            await self._news.wait()
        if not all(child.is_up for child in new):
            self._settings = before
            self._abandon(new)
            return False
        self._children.generation = self._newest
        for child in self._children:
            if child.generation < self._children.generation:
                self._drain(child, self._settings.reload_grace)
        self._tell(WorkerEvent(kind=EventKind.RELOADED))
        return True

    def _abandon(self, new: Sequence[Child]) -> None:
        why = next((child.failure for child in new if child.failure), "its runners died while they started")
        log.error("the new code is not taken: %s", why)
        self._tell(WorkerEvent(kind=EventKind.NOT_RELOADED, detail=why))
        for child in new:
            child.is_leaving = True
            child.kill()

    async def _end(self) -> None:
        for child in self._children:
            child.kill()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(LAST_CALLS):
                for child in self._children:
                    await child.exited()
                    await self._backend.end_session(child.post_mortem())
        except (TimeoutError, DetentError) as error:
            log.warning("what the runners held is found out by the next worker: %s", error)
        for child in self._children:
            child.close()

    async def _unless_over(self, work: Awaitable[None]) -> None:
        """Wait for *work*, unless the worker is to end before."""
        working, ending = asyncio.ensure_future(work), asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            working.cancel()
            ending.cancel()
            await asyncio.gather(working, ending, return_exceptions=True)

    def _check_over(self) -> None:
        if self._is_ending and not self._children:
            self._over.set()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- children ----

    async def _add(self, *, generation: int | None = None, is_solo: bool = False, is_spare: bool = False) -> Child:
        generation = self._children.generation if generation is None else generation
        child = Child(
            self._settings,
            generation=generation,
            is_solo=is_solo,
            is_spare=is_spare,
            cgroups=self._solos.groups if is_solo else None,
            variables=self._variables.values,
        )
        self._children.add(child)
        try:
            await child.start(self._command, lambda message: self._receive(child, message))
        except OSError:
            self._children.remove(child)
            child.close()
            raise
        self._spawn(self._accompany(child))
        if self._is_ending:
            self._drain(child, self._settings.grace)
        return child

    async def _add_solo(self, *, is_spare: bool) -> None:
        await self._add(is_solo=True, is_spare=is_spare)

    def _solo_limit(self) -> int:
        # One that starts while the code is being replaced would be drained with the old ones.
        return 0 if self._is_ending or self._reloading.locked() else self._settings.solo_limit

    async def _accompany(self, child: Child) -> None:
        """Wait for the end of a child, bury it, and replace it."""
        await child.exited()
        end = child.post_mortem()
        child.close()
        self._news.set()
        if end.error is not None and child.is_up:
            self._say_died(child, end)
        if self._wants_replacement(child):
            self._spawn(self._replace(child))
        if child.is_solo and child.is_up:
            # It may have been the spare, or one too many for a new one. (One that was never up is left to the next renewal.)
            self._solos.staff_soon()
        await self._bury(end)
        self._children.remove(child)
        self._check_over()

    async def _bury(self, end: SessionEnd) -> None:
        try:
            async with asyncio.timeout(LAST_CALLS if self._is_ending else None):
                ended = await persistently(self._backend.end_session)(end)
        except TimeoutError:
            log.warning(
                "the database does not answer; session %s will be found lost by the next worker", end.session_id
            )
        else:
            self._solos.expect(ended)

    def _wants_replacement(self, child: Child) -> bool:
        return not (
            self._is_ending or child.is_leaving or child.is_solo or child.generation != self._children.generation
        )

    async def _replace(self, child: Child) -> None:
        if child.is_up:
            self._failed_starts = 0
        else:
            # It died before it was up: the cause is likely to last.
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS and not self._was_up:
                self._fail("the runners die while they start; their own output says why")
                return
            waits = pauses(0.2, 5.0)
            await asyncio.sleep([next(waits) for _ in range(min(self._failed_starts, 8))][-1])
        if not self._is_ending and child.generation == self._children.generation:
            await self._add_or_try_again(child)

    async def _add_or_try_again(self, instead_of: Child) -> None:
        try:
            await self._add()
        except OSError as error:
            log.error("a runner cannot be started, trying again: %s", error)
            instead_of.is_up = False
            self._spawn(self._replace(instead_of))

    def _kill(self, child: Child, why: str) -> None:
        log.warning("runner %d is killed: %s", child.pid, why)
        self._tell(WorkerEvent(kind=EventKind.RUNNER_KILLED, detail=f"runner {child.pid}: {why}"))
        child.kill()

    # ---- what runners say ----

    def _receive(self, child: Child, message: Message) -> None:
        match message:
            case Announced():
                child.take_announced(message)
            case Happened(events=events):
                for kind, run_id, task_id, attempt, seconds, detail in events:
                    self._tell(
                        WorkerEvent(
                            kind=EventKind(kind),
                            run_id=run_id,
                            task_id=task_id,
                            attempt=attempt,
                            seconds=seconds,
                            detail=detail,
                        )
                    )
            case Confined():
                child.confined = message
                self._solos.say_what_holds()
            case Report():
                child.take_report(message)
            case Load(has_room=has_room):
                self._take_load(child, has_room=has_room)
            case Up():
                self._take_up(child, message)
            case NotStarted(message=why):
                self._take_not_started(child, why)
            case Poisoned(run_id=run_id, task_id=task_id):
                self._take_poisoned(child, run_id, task_id)
            case Finished():
                child.is_finished = child.is_leaving = True
                asyncio.get_running_loop().call_later(EXIT_SECONDS, child.kill)
            case _:
                log.error("a supervisor does not expect %r", message)

    def _take_up(self, child: Child, up: Up) -> None:
        child.is_up = self._was_up = True
        child.has_process_tasks = up.has_process_tasks
        self._news.set()
        if not child.is_solo:
            self._tell(WorkerEvent(kind=EventKind.UP, detail=f"runner {child.pid}: {', '.join(up.task_ids)}"))
        if up.has_process_tasks:
            self._solos.staff_soon()

    def _take_load(self, child: Child, *, has_room: bool) -> None:
        child.has_room = has_room
        if child.is_solo and not has_room:
            self._solos.take_busy()

    def _take_not_started(self, child: Child, why: str) -> None:
        self._news.set()
        child.failure = why
        if not self._was_up:
            self._fail(why)
        elif child.generation == self._children.generation:
            log.error("a runner did not start: %s", why)

    def _fail(self, why: str) -> None:
        self._failure = why
        self._is_ending = True
        self._over.set()

    def _take_poisoned(self, child: Child, run_id: str, task_id: str) -> None:
        what = f'run {run_id} of task "{task_id}" does not end; its runner takes no more work and ends after the others'
        log.warning("%s", what)
        self._tell(WorkerEvent(kind=EventKind.BLOCKING, run_id=run_id, task_id=task_id, detail=what))
        if self._wants_replacement(child):
            self._spawn(self._replace(child))
        child.is_leaving = True

    # ---- keeping an eye on them ----

    async def _watch_forever(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            try:
                self._vigil.look(time.monotonic(), self._children.up)
            except Exception:
                log.exception("watching the runners failed")

    def _time_out(self, child: Child, overdue: Sequence[Noted]) -> None:
        self._spawn(self._fence_and_kill(child, overdue))

    async def _fence_and_kill(self, child: Child, overdue: Sequence[Noted]) -> None:
        """End runs that are over their time in a runner whose loop they hold, then the runner; the others are handed back."""
        outcomes = [TimedOut(holder=Holder(run_id=run.run_id, fence=run.fence), error=_overran(run)) for run in overdue]
        await persistently(self._backend.complete_attempts)(outcomes)
        for run in overdue:
            self._tell(WorkerEvent(kind=EventKind.TIMED_OUT, run_id=run.run_id, task_id=run.task_id))
        self._kill(child, f"run {overdue[0].run_id} is over its max_duration and holds the interpreter")

    def _say_blocking(self, child: Child, noted: Sequence[Noted], seconds: float) -> None:
        for run in noted:
            place = f"the event loop of runner {child.pid}"
            what = f'run {run.run_id} of task "{run.task_id}" has blocked {place} for {seconds:.0f} s'
            log.warning("%s; use async calls, or a plain def, which gets a thread", what)
            self._tell(
                WorkerEvent(
                    kind=EventKind.BLOCKING, run_id=run.run_id, task_id=run.task_id, seconds=seconds, detail=what
                )
            )

    def _say_died(self, child: Child, end: SessionEnd) -> None:
        cause = str(end.error.message) if end.error is not None else ""
        log.warning("runner %d died: %s; its runs are handed back", child.pid, cause)
        self._tell(WorkerEvent(kind=EventKind.RUNNER_DIED, detail=f"runner {child.pid}: {cause}"))
        for run in end.suspects:
            self._tell(WorkerEvent(kind=EventKind.SUSPECTED, run_id=run))


def _overran(run: Noted) -> run_error.RunError:
    return run_error.internal(
        ErrorCode.MAX_DURATION, f"run {run.run_id} ran longer than its max_duration and did not give way"
    )
