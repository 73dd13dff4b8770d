"""The process without user code: starts the runners, renews for them, passes wake-ups on, and buries them.

What it decides: how many runners there are, whose session is renewed (one that lives and is not stopped), who is to blame for a
death, and when a process must go. What executes is decided by the database and the runners alone: a supervisor that is gone
takes its runners with it, and their sessions run out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property

from detent.errors import ApiConnectionError, ConfigError, DetentError
from detent.protocol import run_error
from detent.protocol.attempts import TimedOut
from detent.protocol.backend import WorkerBackend
from detent.protocol.envvars import Variables
from detent.protocol.fence import Holder
from detent.protocol.run_error import ErrorCode
from detent.protocol.sessions import Renewed, SessionBeat, SessionEnd, SessionEnded
from detent.protocol.wake_ups import Wake
from detent.worker import cgroups
from detent.worker.cgroups import Cgroups
from detent.worker.child import Child
from detent.worker.control import (
    Announced,
    AskReport,
    Cancelled,
    Confined,
    Drain,
    Finished,
    Given,
    Happened,
    Load,
    Lost,
    Message,
    NotStarted,
    Poisoned,
    Reopen,
    Report,
    Up,
    Work,
)
from detent.worker.note import Noted
from detent.worker.persistence import pauses, persistently
from detent.worker.reaper import INTERVAL as REAP_INTERVAL
from detent.worker.reaper import LEASE, Reaper
from detent.worker.settings import WorkerSettings
from detent.worker.telling import EventKind, WorkerEvent
from detent.worker.vigil import Vigil

RENEW_INTERVAL = 5.0
REPORT_SECONDS = 0.25
"""How long a renewal waits for the reports of its runners; one whose loop is blocked is renewed by its last report."""
VARIABLES_INTERVAL = 5.0
WATCH_INTERVAL = 0.25
LAST_CALLS = 5.0
"""How long ending sessions may take when the worker itself is ending."""
FAILED_STARTS = 5
"""Runners that may die in succession before any was up."""
EXIT_SECONDS = 3.0
"""From a runner's last word to its exit."""
SOLO_START_SECONDS = 1.0
"""By which a process for a run that must be alone is started before the run may start."""
SOLO_OFFER_SECONDS = 0.02
"""After which processes for one run are woken: they must not compete with the runners for the moment in which a run starts."""
MANY = 4
"""Runs ready at once from which on every runner is woken, not one."""

log = logging.getLogger("detent.worker")


class Supervisor:
    def __init__(
        self,
        settings: WorkerSettings,
        backend: WorkerBackend,
        command: Sequence[str],
        *,
        on_event: Callable[[WorkerEvent], None] = lambda event: None,
    ) -> None:
        self._settings, self._backend, self._command, self._tell = settings, backend, tuple(command), on_event
        self._children: list[Child] = []
        self._generation = self._newest = 0
        self._reaper = Reaper()
        self._vigil = Vigil(kill=self._kill, time_out=self._time_out, blocking=self._say_blocking)
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._is_ending = False
        self._failure: str | None = None
        self._turn = 0
        self._solo_waiting = 0
        self._reloading = asyncio.Lock()
        self._failed_starts = 0
        self._was_up = False
        self._news = asyncio.Event()
        self._solo_offer: asyncio.TimerHandle | None = None
        self._has_said_what_holds = False
        self._variables: Variables | None = None

    @cached_property
    def _cgroups(self) -> Cgroups | None:
        """Where runs are held to their machines. Looked for when the first process for one is started."""
        return cgroups.find()

    # ---- life ----

    async def run(self) -> None:
        """Serve until drained. Raises `ConfigError` when the tasks do not load at the start."""
        await self._read_first_variables()
        for _ in range(0 if self._is_ending else self._settings.runners):
            await self._add()
        for serve in (
            self._renew_forever, self._reap_forever, self._listen_forever, self._watch_forever, self._read_variables_forever,
        ):  # fmt: skip
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
        await self._staff_solos()
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
        self._generation = self._newest
        for child in self._children:
            if child.generation < self._generation:
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

    def _check_over(self) -> None:
        if self._is_ending and not self._children:
            self._over.set()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- children ----

    async def _add(self, *, generation: int | None = None, is_solo: bool = False, is_spare: bool = False) -> Child:
        generation = self._generation if generation is None else generation
        child = Child(
            self._settings,
            generation=generation,
            is_solo=is_solo,
            is_spare=is_spare,
            cgroups=self._cgroups if is_solo else None,
            variables=self._variables.values if self._variables else {},
        )
        self._children.append(child)
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
            self._spawn(self._staff_solos())
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
            self._expect_alone(ended)

    def _wants_replacement(self, child: Child) -> bool:
        return not (self._is_ending or child.is_leaving or child.is_solo or child.generation != self._generation)

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
        if not self._is_ending and child.generation == self._generation:
            await self._add_or_try_again(child)

    async def _add_or_try_again(self, instead_of: Child) -> None:
        try:
            await self._add()
        except OSError as error:
            log.error("a runner cannot be started, trying again: %s", error)
            instead_of.is_up = False
            self._spawn(self._replace(instead_of))

    def _expect_alone(self, ended: SessionEnded) -> None:
        """Have a process ready for each run that must start alone, by the time it may."""
        for pause in ended.alone:
            asyncio.get_running_loop().call_later(max(0.0, pause - SOLO_START_SECONDS), self._await_alone)

    def _await_alone(self) -> None:
        if not self._is_ending:
            self._solo_waiting += 1
            self._spawn(self._staff_solos())

    async def _staff_solos(self) -> None:
        """Start processes for runs that must be alone, and keep one ready when there are tasks that always must."""
        try:
            await self._add_solos()
        except OSError as error:
            log.error("a process for a run that must be alone cannot be started; trying again: %s", error)

    async def _add_solos(self) -> None:
        # Looked at anew after each: others staff meanwhile.
        while not (self._is_ending or self._reloading.locked()):
            solos = [child for child in self._children if child.is_solo and child.is_alive and not child.is_leaving]
            idle = [child for child in solos if child.has_room]
            wants_spare = self._has_process_tasks and not any(child.is_spare for child in idle)
            if len(solos) >= self._settings.solo_limit or not (wants_spare or self._solo_waiting > len(idle)):
                return
            await self._add(is_solo=True, is_spare=wants_spare)

    @property
    def _has_process_tasks(self) -> bool:
        present = (child for child in self._children if child.is_up and child.generation == self._generation)
        return any(child.has_process_tasks for child in present)

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
                self._say_what_holds()
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
            self._spawn(self._staff_solos())

    def _take_load(self, child: Child, *, has_room: bool) -> None:
        child.has_room = has_room
        if child.is_solo and not has_room:
            self._solo_waiting = max(0, self._solo_waiting - 1)
            self._spawn(self._staff_solos())

    def _take_not_started(self, child: Child, why: str) -> None:
        self._news.set()
        child.failure = why
        if not self._was_up:
            self._fail(why)
        elif child.generation == self._generation:
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

    # ---- sessions ----

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(RENEW_INTERVAL)
            try:
                await self._renew()
            except ApiConnectionError as error:
                log.warning("sessions cannot be renewed: %s", error)
                self._tell(WorkerEvent(kind=EventKind.DATABASE_AWAY, detail=str(error)))
            except Exception:
                log.exception("sessions cannot be renewed")

    async def _renew(self) -> None:
        renewed = [child for child in self._children if child.is_up and child.is_alive and not child.is_stopped()]
        if not renewed:
            return
        await self._ask_reports(renewed)
        renewals = {child.session: (child, child.renewal()) for child in renewed if child.is_up}
        sent = {session: dict(child.held) for session, (child, _) in renewals.items()}
        for answer in await self._backend.renew_sessions([renewal for _, renewal in renewals.values()]):
            child, _ = renewals[answer.session_id]
            if child.session == answer.session_id and child.is_alive:
                self._take_renewed(child, answer, sent[answer.session_id])
        await self._staff_solos()

    async def _ask_reports(self, children: Sequence[Child]) -> None:
        for child in children:
            child.reported.clear()
            child.send(AskReport())
        try:
            async with asyncio.timeout(REPORT_SECONDS):
                for child in children:
                    await child.reported.wait()
        except TimeoutError:
            pass  # its loop is blocked: what it announced before is enough

    def _take_renewed(self, child: Child, answer: Renewed, sent: dict[str, int]) -> None:
        if not answer.is_alive:
            child.send(Reopen(session_id=child.new_session()))
            return
        if answer.cancelled:
            self._vigil.cancel(time.monotonic(), answer.cancelled)
            child.send(Cancelled(run_ids=answer.cancelled))
        if answer.lost:
            child.send(Lost(holders=tuple((run_id, sent[run_id]) for run_id in answer.lost if run_id in sent)))
        self._solo_waiting = answer.solo_waiting

    async def _reap_forever(self) -> None:
        while True:
            try:
                beats = await self._backend.list_sessions()
                own = {child.session for child in self._children}
                for dead in self._reaper.observe(time.monotonic(), beats, own):
                    await self._reap(dead)
            except ApiConnectionError:
                self._reaper.lose_contact()
            except Exception:
                log.exception("looking for lost workers failed")
                self._reaper.lose_contact()
            await asyncio.sleep(REAP_INTERVAL)

    async def _reap(self, dead: SessionBeat) -> None:
        error = run_error.internal(ErrorCode.WORKER_LOST, f"its worker has given no sign of life for {LEASE:g} s")
        ended = await self._backend.end_session(
            SessionEnd(session_id=dead.session_id, error=error, is_lost=True, beat=dead.beat)
        )
        self._expect_alone(ended)
        log.warning("session %s of another worker is lost; %d runs are handed back", dead.session_id, ended.returned)

    # ---- variables ----

    async def _read_first_variables(self) -> None:
        """Wait for what the code may need when it is loaded, unless the worker is to end before."""
        reading = asyncio.ensure_future(persistently(self._read_variables)())
        ending = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        finally:
            reading.cancel()
            ending.cancel()
            await asyncio.gather(reading, ending, return_exceptions=True)

    async def _read_variables_forever(self) -> None:
        while True:
            await asyncio.sleep(VARIABLES_INTERVAL)
            try:
                await self._read_variables()
            except ApiConnectionError:
                pass  # told by those that renew
            except Exception:
                log.exception("the variables of the environment cannot be read; runs go on with those they have")

    async def _read_variables(self) -> None:
        """Pass on what the environment gives to runs, when it is something else than before."""
        changed = await self._backend.read_variables(self._variables.fingerprint if self._variables else None)
        if changed is None:
            return
        self._variables = changed
        if changed.obstacle:
            log.error("%s", changed.obstacle)
        if shadowed := ", ".join(sorted(changed.values.keys() & os.environ.keys())):
            log.warning("runs find the worker's own %s, not what the environment has under that name", shadowed)
        for child in self._children:
            child.send(Given(variables=changed.values))

    # ---- wake-ups ----

    async def _listen_forever(self) -> None:
        for pause in pauses():
            try:
                async with self._backend.listen() as wakes:
                    async for wake in wakes:
                        self._pass_on(wake)
            except ApiConnectionError:
                pass
            except Exception:
                log.exception("listening for wake-ups failed; polling meanwhile")
            await asyncio.sleep(pause)

    def _pass_on(self, wake: Wake) -> None:
        working = [child for child in self._children if child.is_working]
        if wake.cancelled:
            self._vigil.cancel(time.monotonic(), wake.cancelled)
            for child in self._children:
                child.send(Cancelled(run_ids=wake.cancelled))
        for child in working:
            if child.session in wake.resumed:
                child.send(Work())
        if wake.ready:
            self._offer(wake.ready, working)

    def _offer(self, ready: int, working: Sequence[Child]) -> None:
        if any(child.is_solo for child in working) and self._solo_offer is None:
            self._solo_offer = asyncio.get_running_loop().call_later(SOLO_OFFER_SECONDS, self._offer_solos)
        runners = [
            child for child in working if not child.is_solo and child.has_room and not self._vigil.is_stuck(child)
        ]
        if not runners:
            return
        if ready < MANY:
            self._turn += 1
            runners = [runners[self._turn % len(runners)]]
        for child in runners:
            child.send(Work())

    def _offer_solos(self) -> None:
        self._solo_offer = None
        for child in self._children:
            if child.is_solo and child.is_working and child.has_room:
                child.send(Work())

    # ---- keeping an eye on them ----

    async def _watch_forever(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            try:
                self._vigil.look(
                    time.monotonic(), [child for child in self._children if child.is_up and child.is_alive]
                )
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

    def _say_what_holds(self) -> None:
        if self._has_said_what_holds:
            return
        self._has_said_what_holds = True
        if self._cgroups is not None:
            log.info("runs are held to the memory and CPU of their machines by cgroups in %s", self._cgroups.folder)
            return
        log.warning(
            "runs are held to the memory of their machines by rlimits, each process by itself, and CPU is not limited, "
            "as this worker may not make cgroups; give it a folder of cgroup v2 to itself, with the controllers cpu and memory "
            "(systemd: Delegate=yes)"
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
