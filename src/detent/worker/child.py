"""A runner as its supervisor sees it: a process, a channel, a note, and a session in its name."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from detent.protocol import ids, run_error
from detent.protocol.fence import Holder
from detent.protocol.ids import RunId, SessionId
from detent.protocol.run_error import ErrorCode, RunError
from detent.protocol.sessions import Renewal, SessionEnd
from detent.worker.cgroups import Cgroups, Group
from detent.worker.control import Announced, Channel, Confined, Hello, Message, Report
from detent.worker.machines import out_of_memory
from detent.worker.note import Note
from detent.worker.process import INHERITED, OUT_OF_MEMORY_CODE, Inherited
from detent.worker.settings import WorkerSettings

_CLOSING_SECONDS = 1.0
_STOPPED = {psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP}
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
_KILLS = {signal.SIGKILL, signal.SIGABRT}


@dataclass(slots=True)
class Watched:
    """What the supervisor last saw of a runner's loop, by its own clock."""

    tick: int = -1
    moved_at: float = field(default_factory=time.monotonic)
    stopped_at: float | None = None
    is_condemned: bool = False
    """Runs in it are being ended, and then it."""
    told_at: float = 0.0
    """For how long the present blockage had lasted when it was last logged."""


class Child:
    """One runner process, from its start to its end."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        generation: int,
        is_solo: bool = False,
        is_spare: bool = False,
        cgroups: Cgroups | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.settings, self.generation, self.is_solo, self.is_spare = settings, generation, is_solo, is_spare
        self.variables = variables or {}
        self.session = ids.new_session_id()
        self.watched = Watched()
        self.is_up = False
        self.has_room = True
        self.has_process_tasks = False
        """Its code has tasks whose runs each want a process of their own."""
        self.is_leaving = False
        """Drains or is poisoned: it gets no more work, and its end needs no replacement."""
        self.is_finished = False
        """Has said that nothing is left to do."""
        self.is_killed = False
        """By this supervisor: what it executed is not to blame."""
        self.confined: Confined | None = None
        """The machine that it is held to."""
        self.failure = ""
        """Why it could not start."""
        self.held: tuple[tuple[str, int], ...] = ()
        self.in_flight: set[int] = set()
        self.reported = asyncio.Event()
        self.started_at = time.monotonic()
        self._resources = contextlib.ExitStack()
        self._group = None if cgroups is None else self._make_group(cgroups)
        self._channel: Channel | None = None
        self._early: list[Message] = []
        self._closed = asyncio.Event()
        self._post_mortem: SessionEnd | None = None
        self._exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def start(self, command: Sequence[str], receive: Callable[[Message], None]) -> None:
        loop = asyncio.get_running_loop()
        end, far_end = socket.socketpair()
        with contextlib.ExitStack() as undone:
            undone.callback(end.close)
            self._spawn(command, far_end)
            threading.Thread(target=self._wait, args=(loop,), name="detent-child", daemon=True).start()
            self._channel = await Channel.open(end, receive, self._closed.set)
            undone.pop_all()
        self._resources.callback(self._channel.close)
        self.send(
            Hello(
                settings=self.settings.to_json(),
                session_id=self.session,
                is_solo=self.is_solo,
                is_spare=self.is_spare,
                cgroup="" if self._group is None else str(self._group.folder),
                variables=self.variables,
            )
        )
        for message in self._early:
            self.send(message)

    def _make_group(self, cgroups: Cgroups) -> Group | None:
        try:
            group = cgroups.make(self.session)
        except OSError:
            return None  # its rlimit holds it instead
        self._resources.callback(group.remove)
        return group

    def _spawn(self, command: Sequence[str], far_end: socket.socket) -> None:
        self.note, note_fd = Note.create()
        self._resources.callback(self.note.close)
        far_life, life = os.pipe()
        self._resources.callback(os.close, life)
        inherited = Inherited(control=far_end.fileno(), life=far_life, note=note_fd, parent=os.getpid())
        try:
            self._process = subprocess.Popen(
                # The word is for people who look at the list of processes.
                [*command, "alone"] if self.is_solo else list(command),
                pass_fds=(far_end.fileno(), far_life, note_fd),
                env=os.environ | {INHERITED: inherited.to_json()},
                cwd=self.settings.folder,
                stdin=subprocess.DEVNULL,
                # Its own session: what a terminal sends to the group is for the supervisor to decide.
                start_new_session=True,
            )
        finally:
            far_end.close()
            os.close(far_life)
            os.close(note_fd)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return not self._exited.done()

    @property
    def is_working(self) -> bool:
        return self.is_up and self.is_alive and not self.is_leaving

    def send(self, message: Message) -> None:
        if self._channel is None:
            self._early.append(message)
        else:
            self._channel.send(message)

    def kill(self) -> None:
        self.is_killed = True
        if self.is_alive:
            self._process.kill()

    def new_session(self) -> SessionId:
        """Forget the old session, which others have ended, and what was held under it."""
        self.session, self.is_up = ids.new_session_id(), False
        self.held, self.in_flight = (), set()
        return self.session

    async def exited(self) -> None:
        """Return when the process has ended and all that it said has been read."""
        await asyncio.shield(self._exited)
        try:
            async with asyncio.timeout(_CLOSING_SECONDS):
                await self._closed.wait()
        except TimeoutError:
            pass  # a process that the user's code started has inherited the channel and lives on

    def close(self) -> None:
        """Free what the supervisor keeps of it. A second time does nothing."""
        self._resources.close()

    # ---- what is renewed ----

    def take_report(self, report: Report) -> None:
        self.held, self.in_flight = report.held, set(report.in_flight)
        self.reported.set()

    def take_announced(self, announced: Announced) -> None:
        self.in_flight.add(announced.fence)

    def renewal(self) -> Renewal:
        held = tuple(Holder(run_id=RunId(run_id), fence=fence) for run_id, fence in self.held)
        return Renewal(session_id=self.session, held=held, in_flight=tuple(self.in_flight))

    # ---- how it ended ----

    def post_mortem(self) -> SessionEnd:
        """Return what its session ends with: who was on the CPU when it died, of what it died, and what it had not begun."""
        if self._post_mortem is None:
            self._post_mortem = self._examine()
        return self._post_mortem

    def _examine(self) -> SessionEnd:
        unanswered = self.note.unanswered()
        if self.is_killed or self.is_finished:
            return SessionEnd(session_id=self.session, unanswered=unanswered)
        code = self._exited.result()
        if self.confined is not None and self._ran_out_of_memory(code):
            return SessionEnd(
                session_id=self.session,
                # Whoever was on the CPU then: there is one run in it.
                suspects=tuple(run.run_id for run in self.note.executing()),
                unanswered=unanswered,
                error=out_of_memory(self.confined.machine, self.confined.memory_gb),
            )
        return SessionEnd(
            session_id=self.session, suspects=self._suspects(code), unanswered=unanswered, error=describe_exit(code)
        )

    def _ran_out_of_memory(self, code: int) -> bool:
        """Whether the kernel killed it for its memory, or a shell or runtime in between says so (137), or it gave up itself."""
        return code == OUT_OF_MEMORY_CODE or (self._group is not None and (code == -signal.SIGKILL or self._group.has_killed))

    def _suspects(self, code: int) -> tuple[RunId, ...]:
        noted = tuple(run.run_id for run in self.note.on_cpu())
        if noted or -code in {signal.SIGKILL, signal.SIGTERM}:
            return tuple(dict.fromkeys(noted))
        # It ended itself and nobody was seen doing it (a thread that user code started): any of them may have been it.
        return tuple(run.run_id for run in self.note.executing())

    def is_stopped(self) -> bool:
        """Whether a signal has stopped the process (SIGSTOP, a debugger)."""
        try:
            return psutil.Process(self.pid).status() in _STOPPED
        except psutil.Error:
            return False

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        code = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(self._exited.set_result, code)


def describe_exit(code: int) -> RunError:
    """Return the error of a run that was alone in a process which ended with *code* (negative: by a signal)."""
    if code >= 0:
        return run_error.internal(ErrorCode.PROCESS_EXITED, f"the process of the run exited with code {code}")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    message = f"the process of the run was ended by {name}"
    if -code in _FAULTS:
        return run_error.internal(ErrorCode.PROCESS_SEGFAULT, message)
    if -code in _KILLS:
        return run_error.internal(ErrorCode.PROCESS_KILLED, f"{message}; perhaps it ran out of memory")
    return run_error.internal(ErrorCode.PROCESS_EXITED, message)
