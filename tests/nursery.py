"""A Python that has loaded detent, and forks for each process that a test wants.

What it brings up is a process as any other, with a pid, an environment, a folder and files of its own; only that importing
detent, which takes half a second of CPU, is done. `python -m tests.nursery FD` is the nursery, in which no thread ever starts.
"""

from __future__ import annotations

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

from detent.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PATH = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
LOADED = (
    "detent.engine.backend", "detent.migrations", "detent.worker.supervisor",
    "detent.cli.root", *(f"detent.cli.{name}" for name in COMMANDS),
    "pydantic.type_adapter", "rich.table", "typer.rich_utils",
)  # fmt: skip
FILES = 4
"""Its input, output and errors, and where its pid and then its exit code are told."""
_LONGEST = 1 << 20


class Request(TypedDict):
    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]


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
        request = Request(module=module, arguments=[*arguments], folder=str(folder), environment={**environment})
        ours, theirs = os.pipe()
        with open(os.devnull, "rb") as nothing, open(theirs, "wb") as answers:
            files = [file.fileno() for file in (stdin or nothing, output, stderr or output, answers)]
            socket.send_fds(self._door, [json.dumps(request).encode() + b"\n"], files)
        return Child(ours)

    def run(
        self, module: str, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], timeout: float
    ) -> Ended:
        """Carry it out to its end."""
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as stderr:
            files = {"output": output, "stderr": stderr}
            with self.spawn(module, arguments, folder=folder, environment=environment, **files) as child:
                code = child.wait(timeout)
            return Ended(returncode=code, stdout=_read(output), stderr=_read(stderr))

    def close(self) -> None:
        self._door.close()
        self._process.wait(10)


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def main(door: socket.socket) -> None:
    for name in LOADED:
        importlib.import_module(name)
    sys.dont_write_bytecode = True
    gc.freeze()  # a collection in a child would copy all of it
    request = _next_child(door)
    if request is not None:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def _next_child(door: socket.socket) -> Request | None:
    """Fork whenever asked; return in each child what it is to be, and None when nobody can ask any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    while asked := _asked(door):
        line, files = asked
        if os.fork() == 0:
            door.close()
            return _keep(json.loads(line), files)
        for file in files:
            os.close(file)
    return None


def _asked(door: socket.socket) -> tuple[bytes, list[int]] | None:
    line, files, _, _ = socket.recv_fds(door, _LONGEST, FILES)
    while line and not line.endswith(b"\n"):
        line += door.recv(_LONGEST)
    return (line, files) if line else None


def _keep(request: Request, files: list[int]) -> Request:
    """Fork once more, and tell how the child ends; return in the child."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *standard, answers = files
    if (child := os.fork()) == 0:
        os.close(answers)
        _become(request, standard)
        return request
    for file in (*standard, 0, 1, 2):
        os.close(file)
    os.write(answers, b"%d\n" % child)
    _, status = os.waitpid(child, 0)
    os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(request: Request, standard: list[int]) -> None:
    for number, file in enumerate(standard):
        os.dup2(file, number)
        os.close(file)
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here, as in what a shell has put aside
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[0] = request["folder"]
    sys.argv[1:] = request["arguments"]


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
