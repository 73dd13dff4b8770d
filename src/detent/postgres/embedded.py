"""The embedded PostgreSQL of a project, as the rest of detent uses it."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from detent.errors import EmbeddedServerError
from detent.postgres import cluster, flock, lifecycle, postmaster
from detent.postgres import home as homes
from detent.postgres.binaries import Binaries
from detent.postgres.home import Home


class EmbeddedServer:
    """This process's share in the server of a project; the last one to `stop()` its share stops the server."""

    def __init__(self, home: Home, programs: Binaries, socket_folder: Path, users_lock: int) -> None:
        self._home, self._programs = home, programs
        self._socket_folder = socket_folder
        self._users_lock: int | None = users_lock
        self._pid = os.getpid()
        atexit.register(self.stop)

    @property
    def dsn(self) -> str:
        return _dsn(self._socket_folder)

    @property
    def version(self) -> str:
        """The version of PostgreSQL, such as `18.4`."""
        return self._programs.version

    @property
    def log(self) -> Path:
        return self._home.log

    def ensure_alive(self) -> bool:
        """Start the server again if it died; True if it had. Blocks, for less than a second as a rule."""
        if postmaster.accepting(self._home):
            return False
        with _refusals(self._home.path), lifecycle.gate(self._home):
            self._leave()
            try:
                self._socket_folder = lifecycle.bring_up(self._home, self._programs)
            finally:
                self._users_lock = _join(self._home)
        return True

    def stop(self) -> None:
        """Give up this process's share. A forked child gives up only the copy that it inherited."""
        atexit.unregister(self.stop)
        if os.getpid() != self._pid:
            self._leave()
        elif self._users_lock is not None:
            with _refusals(self._home.path), lifecycle.gate(self._home):
                self._leave()
                if lifecycle.is_unused(self._home):
                    lifecycle.shut_down(self._home)

    def _leave(self) -> None:
        if self._users_lock is not None:
            os.close(self._users_lock)
            self._users_lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def start(folder: Path) -> EmbeddedServer:
    """Start the server of the project whose `.detent` folder is given, or join the processes that use it already.

    Raises EmbeddedServerError. Blocks: under a second, and at the first start, which makes the data, under three.

        with embedded.start(Path(".detent")) as server:
            connection = psycopg.connect(server.dsn)
    """
    if sys.platform == "win32":
        raise EmbeddedServerError(
            str(folder), "it does not run on Windows yet", "set DETENT_DATABASE_URL to a server of yours"
        )
    with _refusals(folder):
        return _start(homes.settle(folder))


def running(folder: Path) -> str | None:
    """The dsn of the server in a project's `.detent` folder if one is up, else None. Does not keep it up."""
    try:
        home = homes.find(folder)
    except PermissionError:
        return None
    socket_folder = postmaster.accepting(home) if home else None
    return _dsn(socket_folder) if socket_folder else None


@contextmanager
def _refusals(folder: Path) -> Iterator[None]:
    """What the machine refuses, as an error of detent."""
    try:
        yield
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedServerError(str(folder), str(error), "put that right, or set DETENT_DATABASE_URL") from error


def _start(home: Home) -> EmbeddedServer:
    programs = cluster.programs(home)
    with lifecycle.gate(home):
        try:
            socket_folder = lifecycle.bring_up(home, programs)
            return EmbeddedServer(home, programs, socket_folder, _join(home))
        except BaseException:
            if lifecycle.is_unused(home):
                lifecycle.shut_down(home)
            raise


def _join(home: Home) -> int:
    """Become one of the users; the gate is held, so nobody is alone among them."""
    users_lock = flock.try_shared(home.users_lock, home.account)
    if users_lock is None:
        raise BlockingIOError(f"{home.users_lock} is held by a process that does not belong to detent")
    return users_lock


def _dsn(socket_folder: Path) -> str:
    quoted = str(socket_folder).replace("\\", "\\\\").replace("'", "\\'")
    return f"host='{quoted}' port=5432 dbname={cluster.DATABASE} user={cluster.USER}"
