"""The running server, as seen from outside: what its pid file says, whether it answers, which processes it has."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from detent.postgres.home import Home
from detent.postgres.socket_folder import SOCKET_NAME

CONNECT_TIMEOUT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PidFile:
    """The facts of `postmaster.pid` that matter here; they outlive a server that was killed."""

    pid: int
    socket_folder: Path
    status: str


def read_pid_file(home: Home) -> PidFile | None:
    """What the server wrote; None when there is none, or while it is being written."""
    try:
        lines = (home.data / "postmaster.pid").read_text().splitlines()
        return PidFile(pid=int(lines[0]), socket_folder=Path(lines[4]), status=lines[7].strip())
    except (FileNotFoundError, NotADirectoryError, PermissionError, IndexError, ValueError):
        return None


def accepting(home: Home) -> Path | None:
    """The socket folder of the server if it takes connections."""
    pid_file = read_pid_file(home)
    if pid_file and pid_file.status == "ready" and _listens(pid_file.socket_folder / SOCKET_NAME):
        return pid_file.socket_folder
    return None


def is_alive(pid: int, home: Home) -> bool:
    """Whether `pid` is a process of this server, and not a stranger who was given its number."""
    try:
        return _stands_in(psutil.Process(pid), str(home.data))
    except psutil.NoSuchProcess:
        return False


def processes(home: Home) -> list[psutil.Process]:
    """All living processes of the server, orphans of a dead postmaster included: they stand in its data folder."""
    data = str(home.data)
    return [process for process in psutil.process_iter() if _stands_in(process, data)]


def signal_postmaster(home: Home, number: signal.Signals) -> bool:
    """Send a signal to the postmaster; False when the pid in its file is not a process of this server."""
    pid_file = read_pid_file(home)
    if pid_file is None or not is_alive(pid_file.pid, home):
        return False
    with suppress(ProcessLookupError):
        os.kill(pid_file.pid, number)
    return True


def kill(home: Home) -> None:
    for process in processes(home):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _stands_in(process: psutil.Process, folder: str) -> bool:
    try:
        return process.cwd() == folder
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(CONNECT_TIMEOUT)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError, PermissionError):
            return False
        except OSError:
            # A full queue or a slow answer: busy, but there.
            return True
    return True
