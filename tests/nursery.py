"""A Python that has loaded detent, and forks for each process that a test wants.

What it brings up is a process as any other, with a pid, an environment, a folder and files of its own; only that importing
detent, which takes half a second of CPU, is done. `python -m tests.nursery FD` is the nursery, in which no thread ever starts.

Between the nursery and each child is its keeper, which waits for its end and tells it.

A supervisor from the nursery has a nursery of its own beside it, for its runners: forked before it does anything, so that
nothing it did is in them. Each keeper ends with its nursery, and the nursery with its supervisor, so that the kernel ends
runners with their supervisor as it would if they were its children.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, TypedDict

import psutil

from detent.cli.main import COMMANDS, RUNNER
from detent.engine import faults
from detent.worker import child as child_module
from detent.worker.process import INHERITED

ROOT = Path(__file__).parents[1]
PATH = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
LOADED = (
    "detent.engine.backend", "detent.migrations", "detent.worker.supervisor", "detent.worker.process",
    "detent.cli.root", *(f"detent.cli.{name}" for name in (*COMMANDS, RUNNER)),
    "pydantic.type_adapter", "rich.table", "typer.rich_utils", "uvloop",
)  # fmt: skip
CODE = "-c"
"""In the place of a module: the first argument is Python code."""
FILES = 4
"""Its input, output and errors, and where its pid and then its exit code are told."""
_MOST_INHERITED = 8
_LONGEST = 1 << 20
_LONGEST_NAME = 15
_PR_SET_PDEATHSIG = 1


class Request(TypedDict):
    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    inherited: list[int]
    """The numbers under which further files are open in it."""


class Child:
    """A process from the nursery, to be used as a `subprocess.Popen`."""

    def __init__(self, answers: int) -> None:
        self._answers = os.fdopen(answers, "rb", buffering=0)
        self.returncode: int | None = None
        self.pid = int(self._line())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code once it has ended; raises TimeoutError after so many seconds."""
        if (code := self._ended(timeout)) is None:
            raise TimeoutError(f"process {self.pid} has not ended within {timeout:g} s")
        return code

    def send_signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if self.poll() is None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended, and return when it is gone."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._answers], [], [], timeout)[0]:
            self.returncode = int(self._line())
            self._answers.close()
        return self.returncode

    def _line(self) -> bytes:
        line = self._answers.readline()
        if not line:
            raise ChildProcessError("the nursery has ended; what it printed tells why")
        return line


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What came of a process, as a `subprocess.CompletedProcess` has it."""

    returncode: int
    stdout: str
    stderr: str


class Nursery:
    def __init__(self) -> None:
        self._door, inner = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery", str(inner.fileno())],
            pass_fds=[inner.fileno()], cwd=ROOT, env=os.environ | {"PYTHONPATH": PATH, "PYTHONDONTWRITEBYTECODE": ""},
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        inner.close()

    def spawn(
        self, module: str, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str],
        output: IO[bytes], stdin: IO[bytes] | None = None, stderr: IO[bytes] | None = None,
    ) -> Child:  # fmt: skip
        """Start `python -m module arguments` in a session of its own; errors go to the output, if nowhere else."""
        request = Request(
            module=module, arguments=[*arguments], folder=str(folder), environment={**environment}, inherited=[]
        )
        return Child(_ask(self._door, request, stdin, output, stderr or output))

    def run(
        self, module: str, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], timeout: float
    ) -> Ended:
        """Carry it out to its end."""
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as stderr:
            files = {"output": output, "stderr": stderr}
            with self.spawn(module, arguments, folder=folder, environment=environment, **files) as child:
                code = child.wait(timeout)
            return Ended(returncode=code, stdout=_read(output), stderr=_read(stderr))

    @property
    def runners(self) -> RunnersDoor:
        """What a supervisor in this process may start its runners by, in the place of `subprocess`."""
        return RunnersDoor(self._door)

    def close(self) -> None:
        self._door.close()
        self._process.wait(10)


class RunnersDoor:
    """Stands for the module `subprocess` where a supervisor starts its runners."""

    DEVNULL = subprocess.DEVNULL

    def __init__(self, door: socket.socket) -> None:
        self._door = door

    def Popen(  # noqa: N802
        self, command: Sequence[str], *, pass_fds: Sequence[int], env: Mapping[str, str], cwd: str, stdin: int,
        start_new_session: bool,
    ) -> Runner:  # fmt: skip
        assert (stdin, start_new_session) == (self.DEVNULL, True), "all that come from here are like that"
        module, *arguments = command[command.index("-m") + 1 :] if "-m" in command else command[command.index(CODE) :]
        request = Request(
            module=module, arguments=arguments, folder=cwd or os.getcwd(), environment={**env}, inherited=[*pass_fds]
        )
        with open(1, "wb", closefd=False) as output, open(2, "wb", closefd=False) as errors:
            return Runner(_ask(self._door, request, None, output, errors))


class Runner(Child):
    """What a supervisor needs of a `subprocess.Popen`: it may be killed while a thread waits for its end."""

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def runners_of(pid: int) -> list[psutil.Process]:
    """The runners of a supervisor, whether they are its children or were forked for it; each leads a session."""
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        below = psutil.Process(pid).children(recursive=True)
        return [process for process in below if RUNNER in words_of(process) and os.getsid(process.pid) == process.pid]
    return []


def words_of(process: psutil.Process) -> list[str]:
    """Its command line, and what the nursery calls it; nothing for one that is dead."""
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        if process.status() != psutil.STATUS_ZOMBIE:
            return [*process.name().split("-"), *process.cmdline()]
    return []


def _ask(
    door: socket.socket, request: Request, stdin: IO[bytes] | None, output: IO[bytes], stderr: IO[bytes]
) -> int:
    """Have a process brought up; return the file in which its pid, and then its exit code, can be read."""
    ours, theirs = os.pipe()
    with open(os.devnull, "rb") as nothing, open(theirs, "wb") as answers:
        files = [file.fileno() for file in (stdin or nothing, output, stderr, answers)]
        socket.send_fds(door, [json.dumps(request).encode() + b"\n"], [*files, *request["inherited"]])
    return ours


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def main(door: socket.socket) -> None:
    for name in LOADED:
        importlib.import_module(name)
    sys.dont_write_bytecode = True
    gc.freeze()  # a collection in a child would copy all of it
    request = _next_child(door)
    if request is not None and _serves(request) and sys.platform == "linux":
        request = _with_runners(request)
    if request is None:
        return
    faults.active = faults.switched_on(os.environ.get(faults.VARIABLE))  # it was loaded without this environment
    if request["module"] == CODE:
        exec(request["arguments"][0], {"__name__": "__main__"})
    else:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def _serves(request: Request) -> bool:
    return request["arguments"][:1] in (["dev"], ["worker"])


def _with_runners(request: Request) -> Request | None:
    """Give a supervisor a nursery for its runners; return what this process is to be: the supervisor, or one of them."""
    ours, theirs = socket.socketpair()
    supervisor = os.getpid()
    if os.fork() == 0:
        ours.close()
        os.setsid()  # what is sent to the supervisor's group is not for it
        _die_with(supervisor)
        return _next_child(theirs)
    theirs.close()
    vars(child_module)["subprocess"] = RunnersDoor(ours)
    return request


def _next_child(door: socket.socket) -> Request | None:
    """Fork whenever asked; return in each child what it is to be, and None when nobody can ask any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    nursery = os.getpid()
    while asked := _asked(door):
        line, files = asked
        if os.fork() == 0:
            door.close()
            return _keep(json.loads(line), files, nursery)
        for file in files:
            os.close(file)
    return None


def _asked(door: socket.socket) -> tuple[bytes, list[int]] | None:
    line, files, _, _ = socket.recv_fds(door, _LONGEST, FILES + _MOST_INHERITED)
    while line and not line.endswith(b"\n"):
        line += door.recv(_LONGEST)
    return (line, files) if line else None


def _keep(request: Request, files: list[int], nursery: int) -> Request:
    """Fork once more, and tell how the child ends; return in the child."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    standard, answers, inherited = files[: FILES - 1], files[FILES - 1], files[FILES:]
    keeper = os.getpid()
    _die_with(nursery)
    if (pid := os.fork()) == 0:
        os.close(answers)
        _become(request, standard, inherited, keeper)
        return request
    for file in (*standard, *inherited, 0, 1, 2):
        os.close(file)
    os.write(answers, b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(request: Request, standard: list[int], inherited: list[int], keeper: int) -> None:
    _put_files(dict(enumerate(standard)) | dict(zip(request["inherited"], inherited, strict=True)))
    os.setsid()
    if request["arguments"][:1] == [RUNNER] and sys.platform == "linux":
        Path("/proc/self/comm").write_text("-".join(request["arguments"])[:_LONGEST_NAME])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here, as in what a shell has put aside
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if told := os.environ.get(INHERITED):
        os.environ[INHERITED] = _kept_by(keeper, told)
    sys.path[0] = request["folder"]
    sys.argv[1:] = request["arguments"]


def _kept_by(keeper: int, told: str) -> str:
    """Name to a runner the process that it must not outlive."""
    *files, _ = json.loads(told)
    return json.dumps([*files, keeper])


def _put_files(wanted: Mapping[int, int]) -> None:
    """Have each file under the number that is wanted for it, whatever numbers they came under."""
    aside = {number: fcntl.fcntl(file, fcntl.F_DUPFD, max(wanted) + 1) for number, file in wanted.items()}
    for file in wanted.values():
        os.close(file)
    for number, file in aside.items():
        os.dup2(file, number)
        os.close(file)


def _die_with(parent: int) -> None:
    """Have the kernel end this process with the one that forked it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
