"""A runner as a process: what it inherits, how it loads the tasks, and how it ends with its supervisor."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import faulthandler
import gc
import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from detent.errors import ConfigError, DetentError
from detent.protocol.backend import WorkerBackend
from detent.protocol.ids import SessionId
from detent.sdk import discovery
from detent.sdk.machines import machines
from detent.sdk.registry import registry
from detent.worker import control, in_order, timers
from detent.worker.capture import Capture, capturing
from detent.worker.confinement import confinement_in
from detent.worker.control import Channel, Given, Hello, Message, NotStarted
from detent.worker.note import Note
from detent.worker.runner import Runner
from detent.worker.settings import WorkerSettings
from detent.worker.trust import trust
from detent.worker.variables import GivenVariables

if TYPE_CHECKING:
    from detent.worker.providers import Providers

INHERITED = "DETENT_RUNNER"
"""Environment variable with the numbers of the inherited file descriptors: control socket, life line, note; and the parent."""
OUT_OF_MEMORY_CODE = 128 + signal.SIGKILL
"""What a process exits with whose own work found no memory; the same as of one that was killed for it."""
_PR_SET_PDEATHSIG = 1
_CLOSING_SECONDS = 2.0

Connect = Callable[[WorkerSettings], WorkerBackend]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """File descriptors from the supervisor, and its process id."""

    control: int
    life: int
    note: int
    parent: int

    def to_json(self) -> str:
        return json.dumps([self.control, self.life, self.note, self.parent])

    @classmethod
    def take(cls) -> Inherited:
        """Read the numbers, and hide them from the processes that user code starts."""
        numbers = os.environ.pop(INHERITED, None)
        if numbers is None:
            raise ConfigError("`detent runner` is started by `detent worker` and `detent dev`, not by hand")
        control_fd, life, note, parent = json.loads(numbers)
        for fd in (control_fd, life, note):
            os.set_inheritable(fd, False)
        return cls(control=control_fd, life=life, note=note, parent=parent)


def main(connect: Connect) -> NoReturn:
    """Be a runner. *connect* makes its backend, which opens itself on the loop that first uses it. Ends the process."""
    inherited = Inherited.take()
    _die_with(inherited)
    _leave_signals_to_supervisor()
    faulthandler.enable()
    end = socket.socket(fileno=inherited.control)
    hello = _read_hello(end)
    settings = WorkerSettings.from_json(hello.settings)
    if settings.extra_ca_certs is not None:
        trust(Path(settings.extra_ca_certs))
    variables = GivenVariables()
    variables.give(hello.variables)
    in_order.install()
    try:
        providers = _load(settings)
    except DetentError as error:
        end.sendall(control.encode(NotStarted(message=str(error), detail=traceback.format_exc())))
        _leave(1)
    with capturing(
        log_level=settings.log_level, echo=settings.echo_output, streams=settings.capture_output
    ) as capture:
        try:
            code = _run(_serve(end, hello, settings, connect, Note(inherited.note), capture, variables, providers))
        except BaseException as error:  # noqa: BLE001 - a process that serves nobody must not stay, whatever threads it has
            traceback.print_exc()
            os._exit(OUT_OF_MEMORY_CODE if isinstance(error, MemoryError) else 1)
    _leave(code)


def _run(serving: Coroutine[object, object, int]) -> int:
    loop = timers.new_loop()
    asyncio.set_event_loop(loop)
    task = loop.create_task(serving)
    task.add_done_callback(lambda _: loop.stop())
    while not task.done():
        # Again when the code of a run has stopped the loop, or a callback of it has raised SystemExit: it is not its to end.
        with contextlib.suppress(SystemExit, KeyboardInterrupt):
            loop.run_forever()
    return task.result()


async def _serve(
    end: socket.socket,
    hello: Hello,
    settings: WorkerSettings,
    connect: Connect,
    note: Note,
    capture: Capture,
    variables: GivenVariables,
    providers: Providers | None,
) -> int:
    early: list[Message] = []
    channel = await Channel.open(end, early.append, lambda: os._exit(1))
    backend = connect(settings)
    confinement = confinement_in(hello.cgroup) if hello.is_solo else None
    runner = Runner(
        settings, backend, channel, note, capture,
        is_solo=hello.is_solo, is_spare=hello.is_spare, confinement=confinement,
        telemetry=None if providers is None else providers.runs,
    )  # fmt: skip

    def receive(message: Message) -> None:
        if isinstance(message, Given):
            variables.give(message.variables)
        else:
            runner.receive(message)

    channel.receive = receive
    for message in early:
        receive(message)
    try:
        await runner.run(SessionId(hello.session_id))
    except DetentError as error:
        channel.send(NotStarted(message=str(error), detail=traceback.format_exc()))
        await channel.flushed()
        return 1
    await asyncio.gather(_close(channel, backend), *([] if providers is None else [providers.close()]))
    return 0


async def _close(channel: Channel, backend: WorkerBackend) -> None:
    with contextlib.suppress(TimeoutError, DetentError):
        async with asyncio.timeout(_CLOSING_SECONDS):
            await channel.flushed()
            await backend.close()


def _load(settings: WorkerSettings) -> Providers | None:
    """Import the modules that define the tasks. What they raise is told to the supervisor, which tells the user."""
    machines.own = settings.machines
    # Before the tasks, which may import by name what an instrumentation replaces.
    providers = _providers_of(settings) if settings.has_telemetry else None
    for source in settings.sources or (discovery.load_config(Path(settings.folder)),):
        discovery.discover(source)
    if not registry.all():
        raise ConfigError("no task was found; define one with @task in the files that the worker loads")
    # What is loaded now stays: the collector need not look at it again while runs come and go.
    gc.collect()
    gc.freeze()
    return providers


def _providers_of(settings: WorkerSettings) -> Providers:
    from detent.worker.providers import Providers

    config = discovery.load_config(Path(settings.folder))
    return Providers(config.telemetry, project=settings.project, environment=settings.environment)


def _read_hello(end: socket.socket) -> Hello:
    line = b""
    while not line.endswith(b"\n"):
        # One byte at a time: what follows the line belongs to the event loop.
        received = end.recv(1)
        if not received:
            os._exit(1)
        line += received
    hello = control.decode(line)
    if not isinstance(hello, Hello):
        raise ConfigError(
            f"the supervisor of this runner began with {hello!r}; supervisor and runner must be one version"
        )
    return hello


def _die_with(inherited: Inherited) -> None:
    """End with the supervisor, however that ends: by a thread that sees its pipe close, and on Linux by the kernel."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(inherited.life, 1)
        os._exit(1)

    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != inherited.parent:
            os._exit(1)
    threading.Thread(target=watch, name="detent-life-line", daemon=True).start()


def _leave_signals_to_supervisor() -> None:
    """Outlive what a terminal or an init system sends to the whole group. (A handler, for processes started from here on
    inherit an ignored signal, but not a handled one.)"""

    def leave(number: int, frame: FrameType | None) -> None:
        return

    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)


def _leave(code: int) -> NoReturn:
    """End the process at once: what still hangs in a thread or waits in a coroutine goes on elsewhere."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
