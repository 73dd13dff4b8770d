"""A PostgreSQL of the test's own, whose plug may be pulled."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from detent.postgres import embedded, home, postmaster
from detent.postgres.embedded import EmbeddedServer
from tests.database import server_at


class OwnServer:
    def __init__(self, server: EmbeddedServer, folder: Path, dsn: str) -> None:
        self._server, self.dsn = server, dsn
        found = home.find(folder)
        assert found is not None
        self._home = found

    def kill(self) -> None:
        """SIGKILL to the postmaster; its backends find themselves orphaned, and end."""
        pid_file = postmaster.read_pid_file(self._home)
        assert pid_file is not None
        process = psutil.Process(pid_file.pid)
        process.kill()
        process.wait()

    def start(self) -> None:
        self._server.ensure_alive()

    def shut_down(self) -> None:
        """What an administrator does: clients are disconnected, and refused from here on."""
        assert postmaster.signal_postmaster(self._home, signal.SIGINT)

    def freeze(self) -> None:
        """SIGSTOP to all its processes: connections stay, answers do not come."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        for process in postmaster.processes(self._home):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


@contextmanager
def own_server() -> Iterator[OwnServer]:
    folder = Path(tempfile.mkdtemp(prefix="detent-acceptance-"))
    # Passable, so that as root the data lies in it, too, and goes with it.
    os.chmod(folder, 0o755)
    try:
        with embedded.start(folder / ".detent") as server:
            databases = server_at(server.dsn)
            with databases.new_database(databases.template()) as dsn:
                own = OwnServer(server, folder / ".detent", dsn)
                try:
                    yield own
                finally:
                    own.thaw()
                    own.start()
    finally:
        shutil.rmtree(folder)
