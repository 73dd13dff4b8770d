"""The process that executes runs: leases, keeps them in memory while they execute or wait, reports what they came to.

    Leasing ──leases──> Runner ──Attempt──> Executor ──outcome──> Outbox ──> Backend
                          ^                    │ suspended
                          └──── resumed ───────┘

A run is *held* from its lease until the database has acknowledged its outcome; the supervisor renews for what is held. Whatever
the supervisor says comes over `control`.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import time
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from detent.protocol import run_error
from detent.protocol.attempts import AttemptOutcome, Completed, Failed, RanOutOfMemory, Succeeded, TimedOut
from detent.protocol.backend import WorkerBackend
from detent.protocol.execution import Isolation
from detent.protocol.fence import Holder, Stale
from detent.protocol.final_hooks import HooksLease
from detent.protocol.ids import RunId, SessionId
from detent.protocol.leases import HandBack, Lease
from detent.protocol.machines import Machine
from detent.protocol.run_error import ErrorCode
from detent.protocol.runs import RunOutcome
from detent.protocol.sessions import SessionOpening
from detent.protocol.status import RunStatus
from detent.protocol.wake_ups import Wake
from detent.sdk.hooks import HookKind
from detent.sdk.registry import registry
from detent.worker.attempt import Attempt, Phase, Stop
from detent.worker.capture import Capture
from detent.worker.confinement import Confinement
from detent.worker.control import (
    Announced,
    AskReport,
    Cancelled,
    Confined,
    Drain,
    Finished,
    Load,
    Lost,
    Message,
    Poisoned,
    Reopen,
    Report,
    Up,
    Work,
)
from detent.worker.final_hooks import Ending, ending_of
from detent.worker.hook_calls import has_any
from detent.worker.hooks_leasing import MOST, HooksLeasing
from detent.worker.launcher import Launcher
from detent.worker.leasing import Leasing
from detent.worker.machines import machine_of
from detent.worker.note import Note
from detent.worker.outbox import Outbox
from detent.worker.overrun import Overrun
from detent.worker.persistence import persistently
from detent.worker.registration import registration_of
from detent.worker.residents import Residents, memory_share
from detent.worker.room import Room
from detent.worker.settings import WorkerSettings
from detent.worker.standing import Standing
from detent.worker.telling import EventKind, Teller

if TYPE_CHECKING:
    from detent.worker.telemetry import RunTelemetry

CANCELLED = "it was asked to stop"
START_AFTER = 0.1
"""Seconds after which a run is shown as EXECUTING; a shorter one needs no such write."""
TICK = 0.25
"""Seconds between the beats by which the supervisor sees that the loop turns."""
LAST_CALLS = 5.0
"""Seconds that the outcomes of a runner that is ending may take to arrive."""
MOST_BLOCKED = 1000
"""Threads that may stand in waits; a run beyond them is let go and replayed when it goes on."""
FEW = 4
"""Executing runs up to which a runner takes what it made ready itself."""
SOLO_IDLE = 30.0
"""Seconds for which a solo runner stays without a run."""

log = logging.getLogger("detent.worker")
now = time.monotonic


class Control(Protocol):
    """How a runner speaks to its supervisor. `Channel` is one."""

    def send(self, message: Message, /) -> None: ...
    async def flushed(self) -> None: ...


class Runner:
    def __init__(
        self,
        settings: WorkerSettings,
        backend: WorkerBackend,
        control: Control,
        note: Note,
        capture: Capture,
        *,
        is_solo: bool = False,
        is_spare: bool = False,
        confinement: Confinement | None = None,
        telemetry: RunTelemetry | None = None,
    ) -> None:
        self._settings, self._backend, self._control, self._note = settings, backend, control, note
        self._is_solo, self._is_spare, self._confinement = is_solo, is_spare, confinement
        self._most_begun = (settings.process_keep_alive if is_spare else 1) if is_solo else None
        self._begun = 0
        self._loop = asyncio.get_running_loop()
        self._held: dict[RunId, Attempt] = {}
        self._leaving: set[Attempt] = set()
        self._hooking: set[Attempt] = set()
        """Those of whose runs the final hooks are called."""
        self._room = Room(_slots(settings, is_solo=is_solo))
        self._residents = Residents(
            max(1, settings.max_resident // settings.runners), memory_share(settings.runners), self._evict
        )
        self._errands: set[asyncio.Task[None]] = set()
        self._launcher = Launcher(settings, backend, note, capture, self._ended, telemetry)
        self._standing = Standing(self._launcher.calls, self._held, lost=self._forget, run_errand=self.run_errand)
        self._teller = Teller(control.send, is_on=settings.send_events)
        self._overrun = Overrun(fence=self._time_out, poison=self._poison, takes_signal=_takes_signal)
        self._leasing = Leasing(backend.lease, self._room, announce=self._announce, receive=self._receive)
        self._final = HooksLeasing(backend.lease_hooks, receive=self._receive_hooks, count=lambda: len(self._hooking))
        self._outcomes: Outbox[AttemptOutcome, Completed | Stale] = Outbox(
            backend.complete_attempts, delivered=self._completed, refused=self._not_completed
        )
        # News of a cancel is ids alone, sent to all; the reason is read by the one runner that tells it to code.
        self._reasons: Outbox[RunId, RunOutcome | None] = Outbox(
            backend.watch_runs, delivered=self._stop, refused=lambda run_id, _: self._stop(run_id)
        )
        self._endings: Outbox[Holder, None] = Outbox(backend.end_cancelled)
        self._returns: Outbox[HandBack, None] = Outbox(backend.hand_back)
        self._starts: Outbox[Holder, None] = Outbox(backend.start_attempts)
        backend.hear(self._hear)
        self._session: SessionId | None = None
        self._version = ""
        self._quiet = asyncio.Event()
        self._is_draining = False
        self._is_full = False
        self._drain: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._finished = asyncio.Event()
        self._heart: asyncio.TimerHandle | None = None

    # ---- life ----

    async def run(self, session: SessionId) -> None:
        """Serve until drained."""
        self._launcher.install()
        self._version = await self._register()
        self._launcher.environment = await persistently(self._backend.retrieve_environment)()
        await self._open(session)
        leasing = asyncio.create_task(self._leasing.run())
        final = None if self._is_solo or not _has_final_hooks() else asyncio.create_task(self._final.run())
        self._beat()
        if self._is_solo and not self._is_spare:
            self._loop.call_later(SOLO_IDLE, self._end_if_idle)
        try:
            await self._finished.wait()
        finally:
            self._leasing.end()
            leasing.cancel()
            if final is not None:
                final.cancel()

    async def _register(self) -> str:
        return await persistently(self._backend.register_worker)(registration_of(self._settings))

    async def _open(self, session: SessionId) -> None:
        opening = SessionOpening(
            session_id=session, version=self._version, worker=f"{os.uname().nodename}:{os.getpid()}"
        )
        await persistently(self._backend.open_session)(opening)
        self._session = session
        tasks = registry.all()
        self._control.send(
            Up(
                session_id=session,
                version=self._version,
                task_ids=tuple(task.id for task in tasks),
                has_process_tasks=any(task.isolation is Isolation.PROCESS for task in tasks),
            )
        )
        self._leasing.open(session)
        self._final.open(session)

    def _beat(self) -> None:
        self._note.beat()
        self._standing.beat(self._note.tick)
        self._heart = self._loop.call_later(TICK, self._beat)

    async def close(self) -> None:
        """Free what the process itself would free by ending: the copies of runs that were handed back, threads, timers."""
        tasks = [attempt.task for attempt in self._leaving if attempt.task is not None]
        for attempt in list(self._leaving):
            attempt.drop()
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_CALLS)
        self._launcher.close()
        self._residents.close()
        if self._heart is not None:
            self._heart.cancel()

    # ---- what the supervisor says ----

    def receive(self, message: Message) -> None:
        match message:
            case Work():
                self._leasing.wake()
                self._final.wake()
                self._standing.collect()
            case Cancelled(run_ids=run_ids):
                for run_id in run_ids:
                    self._cancel(RunId(run_id))
            case Lost(holders=holders):
                for run_id, fence in holders:
                    self._lose(RunId(run_id), fence)
            case AskReport():
                self._report()
            case Reopen(session_id=session):
                self._reopen(SessionId(session))
            case Drain(grace=grace):
                self.drain(grace)
            case _:
                log.error("a runner does not expect %r", message)

    def _report(self) -> None:
        held = tuple((attempt.run_id, attempt.fence) for attempt in {*self._held.values(), *self._hooking})
        self._control.send(Report(held=held, in_flight=(*self._leasing.in_flight, *self._final.in_flight)))

    def _reopen(self, session: SessionId) -> None:
        self._leasing.close()
        self._final.close()
        for attempt in list(self._held.values()):
            self._forget(attempt)
        self._drop_hooks(self._hooking)
        if not self._is_draining:
            self._opening = asyncio.create_task(self._open(session))

    def _cancel(self, run_id: RunId) -> None:
        attempt = self._held.get(run_id)
        if attempt is None:
            return
        if attempt.phase is Phase.EXECUTING:
            self._reasons.put(run_id)
        elif attempt.phase is not Phase.ENDED and attempt.stop_reason is not Stop.EVICTED:
            self._forget(attempt)

    def _stop(self, run_id: RunId, outcome: RunOutcome | None = None) -> None:
        """Make a cancelled run's code end, and tell it the reason that its outcome names."""
        attempt = self._held.get(run_id)
        if attempt is None or attempt.phase is not Phase.EXECUTING:
            self._cancel(run_id)
            return
        error = (outcome and outcome.error) or run_error.internal(ErrorCode.CANCELLED, CANCELLED)
        has_hooks = attempt.stop_reason is None and self._has_cancel_hooks(attempt)
        self._overrun.cancel(attempt, error.message, has_hooks=has_hooks)
        if has_hooks:
            self._call_hooks(attempt, Ending(status=RunStatus.CANCELED, error=error))

    def _lose(self, run_id: RunId, fence: int) -> None:
        attempt = self._held.get(run_id)
        if attempt is not None and attempt.fence == fence and attempt.phase is not Phase.ENDED:
            self._forget(attempt)
        self._drop_hooks([hooking for hooking in self._hooking if (hooking.run_id, hooking.fence) == (run_id, fence)])

    # ---- leases ----

    def _hear(self, wake: Wake) -> bool:
        """Ask at once for what a run of this runner made ready. A single run needs nobody else while there is little to do."""
        if self._session is None or self._is_draining:
            return False
        if wake.ready:
            self._final.wake()
        if self._session in wake.resumed:
            self._leasing.wake()
            self._standing.collect()
            return True
        if wake.ready and self._room.has_any:
            self._leasing.wake()
            return wake.ready == 1 and self._room.executing <= FEW and _all_run_here(wake.task_ids)
        return False

    async def _announce(self, fence: int) -> None:
        self._note.ask(fence)
        await self._control.flushed()
        self._control.send(Announced(fence=fence))

    def _receive(self, leases: Sequence[Lease]) -> None:
        if self._is_draining:
            for lease in leases:
                self._give_back(lease)
            self._notice_quiet()
            return
        for fence in {lease.fence for lease in leases}:
            self._note.answered(fence)
        begun = [attempt for lease in leases if (attempt := self._take(lease)) is not None]
        if begun:
            self._loop.call_later(START_AFTER, self._show_started, begun)
            self._show_load()

    def _take(self, lease: Lease) -> Attempt | None:
        known = self._held.get(lease.run_id)
        if not lease.is_resumed:
            if known is not None:
                self._forget(known)
            return self._start(lease)
        if known is None or known.stop_reason is not None:
            # The database believes that the run is still in this memory: forget it, and let it start from its top.
            self._give_back(lease)
            return None
        return self._resume(known, lease)

    def _give_back(self, lease: Lease) -> None:
        """Nothing of it has begun here."""
        self._returns.put(HandBack(holder=Holder(run_id=lease.run_id, fence=lease.fence)))

    def _resume(self, attempt: Attempt, lease: Lease) -> Attempt:
        phase = attempt.phase
        if phase is Phase.WAITING:
            self._room.take(attempt.kind)
            self._residents.remove(attempt)
            self._launcher.go_on(attempt)
        attempt.adopt(lease)
        if phase is Phase.WAITING:
            self._overrun.watch(attempt)
            self._teller.tell(EventKind.RESUMED, attempt)
        elif attempt.outcome is not None:
            # Its code ended while the database still waited for something it had given up.
            attempt.phase, attempt.outcome = Phase.ENDED, replace(attempt.outcome, holder=attempt.holder)
            self._outcomes.put(attempt.outcome)
        return attempt

    def _start(self, lease: Lease) -> Attempt:
        kind = Isolation.PROCESS if self._is_solo else lease.isolation
        attempt = Attempt(lease, kind, self, now)
        attempt.machine = machine_of(lease, self._settings)
        self._confine(attempt)
        self._held[lease.run_id] = attempt
        self._room.take(kind)
        self._begun += 1
        if self._begun == self._most_begun or (self._is_solo and attempt.machine is not None):
            # What holds a process to a machine is not taken off again.
            self._leasing.end()
        self._launcher.start(attempt)
        self._overrun.watch(attempt)
        self._teller.tell(EventKind.STARTED, attempt)
        return attempt

    def _confine(self, attempt: Attempt) -> None:
        """Hold this process to the machine of its run, where that has the process to itself because its task says so."""
        machine, confinement = attempt.machine, self._confinement
        if machine is None or confinement is None or not _wants_process(attempt):
            return
        self._control.send(Confined(machine=machine.name, memory_gb=machine.memory_gb))
        confinement.begin(Machine(cpu=machine.cpu, memory_gb=machine.memory_gb))
        attempt.confinement = confinement

    def _show_started(self, begun: Sequence[Attempt]) -> None:
        for attempt in begun:
            if attempt.phase is Phase.EXECUTING and attempt.stop_reason is None:
                self._starts.put(attempt.holder)

    # ---- ends ----

    def _ended(self, attempt: Attempt, outcome: AttemptOutcome | None) -> None:
        was_waiting = attempt.phase is Phase.WAITING
        attempt.phase = Phase.ENDED
        attempt.task = None
        if attempt.confinement is not None:
            attempt.confinement.end()
        self._standing.discard(attempt)
        self._residents.remove(attempt)
        self._overrun.unwatch(attempt)
        self._launcher.forget(attempt)
        if attempt.stop_reason is not None:
            attempt.end_children()
        if attempt.stop_reason is Stop.EVICTED:
            self._leaving.discard(attempt)
            self._return(attempt)
        elif attempt.is_dropped:
            self._leaving.discard(attempt)
            # It may have been lost because it was cancelled: then its slot is taken until this is said.
            self._endings.put(attempt.holder)
        elif attempt.is_fenced:
            if attempt not in self._hooking:
                self._say_ended(attempt)
        elif attempt.stop_reason is None:
            # It may have been resumed under another fence while its last lines were stored.
            attempt.outcome = replace(outcome or _unexplained(attempt), holder=attempt.holder)
            if was_waiting:
                attempt.phase = Phase.PARKED
                self.wants_back(attempt)
            else:
                self._outcomes.put(attempt.outcome)
        if was_waiting:
            self._notice_quiet()
        else:
            self._give_room(attempt)

    def _give_room(self, attempt: Attempt) -> None:
        self._room.give(attempt.kind)
        self._leasing.has_room(attempt.kind)
        if self._is_full:
            self._show_load()
        self._notice_quiet()

    def _completed(self, outcome: AttemptOutcome, answer: Completed | Stale | None) -> None:
        attempt = self._held.get(outcome.holder.run_id)
        if attempt is None or attempt.fence != outcome.holder.fence:
            return
        if attempt.stop_reason is Stop.OVERRUN:
            attempt.is_fenced = True
            self._teller.tell(EventKind.TIMED_OUT, attempt)
            if attempt.phase is Phase.ENDED:
                self._say_ended(attempt)
            return
        del self._held[attempt.run_id]
        if isinstance(answer, Stale):
            # Cancelled or handed on while it finished: if it was cancelled, its slot is given back by this.
            self._endings.put(attempt.holder)
        else:
            self._tell_outcome(attempt, outcome, answer)
            if isinstance(outcome, Succeeded | Failed | RanOutOfMemory) and outcome.has_hooks and answer is not None:
                self._go_on_with_hooks(attempt, outcome, answer)
        if self._is_full and not self._leasing.is_over:
            self._show_load()
        self._notice_quiet()

    def _not_completed(self, outcome: AttemptOutcome, error: Exception) -> None:
        """The backend takes this outcome from nobody: fail the run with the reason, once."""
        log.error("the outcome of run %s was refused: %s", outcome.holder.run_id, error)
        attempt = self._held.get(outcome.holder.run_id)
        if attempt is None or attempt.fence != outcome.holder.fence:
            return
        if isinstance(outcome, Succeeded):
            self._outcomes.put(_undeliverable(outcome, error))
        else:
            del self._held[attempt.run_id]
            self._returns.put(HandBack(holder=attempt.holder, has_begun=True))

    def _tell_outcome(self, attempt: Attempt, outcome: AttemptOutcome, answer: Completed | None) -> None:
        if isinstance(outcome, Succeeded):
            self._teller.tell(EventKind.SUCCEEDED, attempt)
        elif answer is not None and answer.status is RunStatus.QUEUED:
            self._teller.tell(EventKind.RETRIED, attempt, str(outcome.error))
        else:
            self._teller.tell(EventKind.FAILED, attempt, str(outcome.error))

    def _say_ended(self, attempt: Attempt) -> None:
        """The code of a run that was over already has ended, too."""
        self._held.pop(attempt.run_id, None)
        self._endings.put(attempt.holder)
        if attempt.stop_reason is Stop.CANCELLED:
            self._teller.tell(EventKind.CANCELLED, attempt)
        self._notice_quiet()

    # ---- final hooks ----

    def _has_cancel_hooks(self, attempt: Attempt) -> bool:
        task = registry.get(attempt.task_id)
        return task is not None and has_any(task, HookKind.ON_CANCEL)

    def _go_on_with_hooks(
        self, attempt: Attempt, outcome: Succeeded | Failed | RanOutOfMemory, answer: Completed
    ) -> None:
        if answer.status.is_final:
            self._call_hooks(attempt, ending_of(outcome, answer.status, attempt.raised))

    def _receive_hooks(self, lease: HooksLease) -> None:
        attempt = Attempt(lease.lease, lease.lease.isolation, self, now)
        attempt.machine = machine_of(lease.lease, self._settings)
        attempt.phase = Phase.ENDED
        ending = Ending(status=lease.status, output=lease.output, error=lease.error)
        self._call_hooks(attempt, ending, number=lease.number)

    def _call_hooks(self, attempt: Attempt, ending: Ending, *, number: int = 0) -> None:
        self._hooking.add(attempt)
        self._launcher.call_hooks(attempt, ending, number)
        assert attempt.hooking is not None
        attempt.hooking.add_done_callback(lambda task: self._hooked(attempt, task))

    def _hooked(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        self._hooking.discard(attempt)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the final hooks of run %s could not be called: %s", attempt.run_id, error)
        if attempt.phase is Phase.ENDED:
            self._launcher.forget(attempt)
        if len(self._hooking) == MOST - 1:
            self._final.wake()
        if attempt.stop_reason is Stop.CANCELLED:
            self._overrun.hooks_ended(attempt)
            if attempt.phase is Phase.ENDED:
                self._say_ended(attempt)
        self._notice_quiet()

    def _drop_hooks(self, attempts: Iterable[Attempt]) -> None:
        """Leave final hooks to whoever is given them next."""
        for attempt in list(attempts):
            if attempt.hooking is not None:
                attempt.hooking.cancel()

    # ---- what attempts say (`Host`) ----

    def suspended(self, attempt: Attempt) -> None:
        self._standing.discard(attempt)
        self._overrun.unwatch(attempt)
        self._launcher.stand(attempt)
        self._teller.tell(EventKind.WAITING, attempt)
        self._give_room(attempt)
        if self._is_draining:
            self._evict(attempt)
            return
        self._residents.add(attempt)
        if attempt.is_threaded and self._count_blocked() > MOST_BLOCKED:
            self._residents.remove(attempt)
            self._evict(attempt)
        elif self._is_solo:
            # A lease call that would resume it might bring another run, which would then not be alone.
            self.drain(None)

    def stands(self, attempt: Attempt) -> None:
        """It waits for something and keeps its slot, for more of it may go on."""
        self._standing.add(attempt)

    def wants_back(self, attempt: Attempt) -> None:
        """Its code goes on while it is suspended: have it resumed."""
        self.run_errand(self._standing.take_back(attempt))

    def run_errand(self, work: Coroutine[object, object, None]) -> None:
        """Do something in no run's name."""
        task = self._loop.create_task(work, context=contextvars.Context())
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def _count_blocked(self) -> int:
        return sum(held.is_threaded and held.phase is Phase.WAITING for held in self._held.values())

    def _evict(self, attempt: Attempt) -> None:
        """Free the memory of a run that waits. The database forgets that it was here when its code has ended."""
        if attempt.stop_reason is None:
            self._leaving.add(attempt)
            self._overrun.evict(attempt)

    def lost(self, attempt: Attempt) -> None:
        self._forget(attempt)

    def vanished(self, attempt: Attempt) -> None:
        if attempt.phase in {Phase.EXECUTING, Phase.WAITING}:
            self._ended(attempt, None)

    # ---- ending early ----

    def _forget(self, attempt: Attempt) -> None:
        """Drop this copy: it is somebody else's, or starts again."""
        if self._held.get(attempt.run_id) is attempt:
            del self._held[attempt.run_id]
        if attempt.phase is not Phase.ENDED and not attempt.is_dropped:
            self._leaving.add(attempt)
            self._overrun.drop(attempt)
        self._notice_quiet()

    def _return(self, attempt: Attempt) -> None:
        """Hand a run back as it is; its code is left alone, for this process is about to end."""
        if self._held.get(attempt.run_id) is attempt:
            del self._held[attempt.run_id]
        if attempt.phase is not Phase.ENDED:
            self._leaving.add(attempt)
        self._returns.put(HandBack(holder=attempt.holder, has_begun=True))
        self._teller.tell(EventKind.HANDED_BACK, attempt)

    def _time_out(self, outcome: TimedOut) -> None:
        self._outcomes.put(outcome)

    def _poison(self, attempt: Attempt) -> None:
        """Code that does not end has spoilt this process: the others finish or suspend, then it ends."""
        self._control.send(Poisoned(run_id=attempt.run_id, task_id=attempt.task_id))
        self._leaving.add(attempt)
        self._held.pop(attempt.run_id, None)
        self.drain(None)
        self._notice_quiet()

    def drain(self, grace: float | None) -> None:
        """Lease no more; hand back what waits, give what executes *grace* seconds (None: all it needs), then finish."""
        if self._drain is None:
            self._is_draining = True
            self._leasing.end()
            self._final.close()
            self._drain = self._loop.create_task(self._draining(grace), context=contextvars.Context())

    async def _draining(self, grace: float | None) -> None:
        for attempt in [held for held in self._held.values() if held.phase in {Phase.WAITING, Phase.PARKED}]:
            if attempt.phase is Phase.PARKED:
                self._return(attempt)
            else:
                self._evict(attempt)
        await self._evicted()
        try:
            async with asyncio.timeout(grace):
                while self._is_busy():
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            await self._stop_rest()
        await self._evicted()
        await self._deliver()
        self._teller.flush()
        self._control.send(Finished())
        self._finished.set()

    async def _evicted(self) -> None:
        """Give the code of evicted runs the time to close what it holds."""
        try:
            async with asyncio.timeout(LAST_CALLS):
                while any(attempt.stop_reason is Stop.EVICTED for attempt in self._leaving):
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            for attempt in [left for left in self._leaving if left.stop_reason is Stop.EVICTED]:
                self._return(attempt)

    def _is_busy(self) -> bool:
        return bool(self._leasing.in_flight or self._hooking) or any(
            attempt.phase is Phase.EXECUTING and attempt.stop_reason is not Stop.OVERRUN
            for attempt in self._held.values()
        )

    async def _stop_rest(self) -> None:
        """Stop what executes before it is handed back, so that nobody executes it twice at once, as far as it lets itself."""
        rest = [attempt for attempt in self._held.values() if attempt.phase is Phase.EXECUTING]
        for attempt in rest:
            attempt.drop()
        tasks = [attempt.task for attempt in rest if attempt.task is not None and not attempt.is_threaded]
        tasks += [attempt.hooking for attempt in self._hooking if attempt.hooking is not None]
        self._drop_hooks(self._hooking)
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        for attempt in rest:
            self._return(attempt)

    async def _deliver(self) -> None:
        try:
            async with asyncio.timeout(LAST_CALLS):
                await self._launcher.lines.flushed_all()
                for outbox in (self._outcomes, self._endings, self._returns):
                    await outbox.emptied()
        except TimeoutError:
            log.warning("the database did not answer in time; what it was not told is found out by the next worker")

    def _notice_quiet(self) -> None:
        if self._is_draining:
            self._quiet.set()
        elif self._leasing.is_over and not self._held and not self._hooking:
            self.drain(None)

    def _end_if_idle(self) -> None:
        if not self._held:
            self.drain(None)

    def _show_load(self) -> None:
        is_full = not self._room.has_any or (self._is_solo and bool(self._held))
        if is_full is not self._is_full:
            self._is_full = is_full
            self._control.send(Load(has_room=not is_full, executing=self._room.executing))


def _has_final_hooks() -> bool:
    return any(task.has_final_hooks for task in registry.all())


def _undeliverable(outcome: Succeeded, error: Exception) -> Failed:
    told = run_error.from_exception(error, code=ErrorCode.TASK_OUTPUT)
    return Failed(holder=outcome.holder, error=told, retry_in=None, has_hooks=True)


def _unexplained(attempt: Attempt) -> Failed:
    error = run_error.internal("", "the attempt ended without an outcome")
    return Failed(holder=attempt.holder, error=error, retry_in=None, has_hooks=True)


def _slots(settings: WorkerSettings, *, is_solo: bool) -> dict[Isolation, int]:
    if is_solo:
        return {Isolation.PROCESS: 1}
    return {Isolation.ASYNC: settings.async_slots, Isolation.THREAD: settings.thread_slots}


def _wants_process(attempt: Attempt) -> bool:
    task = registry.get(attempt.task_id)
    return task is not None and task.isolation is Isolation.PROCESS


def _takes_signal(attempt: Attempt) -> bool:
    task = registry.get(attempt.task_id)
    return task is not None and task.takes_signal


def _all_run_here(task_ids: Sequence[str]) -> bool:
    """Whether runs of these tasks need no other version's worker, and no process of their own."""
    tasks = [registry.get(task_id) for task_id in task_ids]
    return bool(tasks) and all(task is not None and task.isolation is not Isolation.PROCESS for task in tasks)
