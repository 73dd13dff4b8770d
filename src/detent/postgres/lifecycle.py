"""Start and stop the one server of a home, among processes that share it and may die at any moment.

Three locked files in the home hold all that is known; the kernel frees each with its holder, so nothing needs repair:

- `gate.lock`, alone: whoever starts or stops the server. Everything here happens behind it.
- `users.lock`, together: each process that uses the server. Who leaves, and then gets it alone, was the last one out.
- `server.lock`, alone: the server. It inherits the descriptor when it is spawned and so do its children: once the lock
  is to be had, no process of the server lives, orphans of a killed postmaster included. No pid is trusted, neither one
  that the kernel has given to somebody else nor one of another container.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import AbstractContextManager
from pathlib import Path

from detent.errors import EmbeddedServerError
from detent.postgres import cluster, flock, postmaster, settings, socket_folder
from detent.postgres.binaries import Binaries
from detent.postgres.home import Home

GATE_TIMEOUT = 180
# Longer than the replay of as much log as the settings allow to pile up.
START_TIMEOUT = 120
STOP_TIMEOUT = 10
EVICT_TIMEOUT = 2


def gate(home: Home) -> AbstractContextManager[None]:
    return flock.exclusive(home.gate_lock, home.account, GATE_TIMEOUT)


def bring_up(home: Home, pg: Binaries) -> Path:
    """Return the socket folder of the home's server, started if need be."""
    deadline = time.monotonic() + START_TIMEOUT
    patience = time.monotonic() + EVICT_TIMEOUT
    log_offset: int | None = None
    while time.monotonic() < deadline:
        if folder := postmaster.accepting(home):
            return folder
        if (server_lock := flock.try_exclusive(home.server_lock, home.account)) is not None:
            if log_offset is not None:
                os.close(server_lock)
                raise _exited(home, log_offset)
            log_offset = _spawn(home, pg, server_lock)
        elif log_offset is None and time.monotonic() > patience:
            _evict(home)
        time.sleep(flock.POLL_SECONDS)
    raise EmbeddedServerError(
        str(home.path),
        f"its server runs but has not answered for {START_TIMEOUT} s",
        "stop the other processes that use it (in another container?) and start again",
    )


def shut_down(home: Home) -> None:
    """Stop the server: its clients are disconnected, its data is written; ever harder if it does not obey."""
    gone = _is_gone(home) or any(_obeys(home, number) for number in (signal.SIGINT, signal.SIGQUIT))
    if not gone:
        postmaster.kill(home)
    if _wait_until_gone(home):
        socket_folder.remove(home)


def is_unused(home: Home) -> bool:
    """Whether no process uses the server; asked by one that does not, or no longer."""
    return _is_free(home.users_lock, home)


def _spawn(home: Home, pg: Binaries, server_lock: int) -> int:
    """Spawn the server with its lock; the size of the log before it writes."""
    try:
        if not home.data.exists():
            cluster.make(home, pg)
        # Nobody runs: the pid file, if there is one, names a dead process or, by now, a stranger.
        (home.data / "postmaster.pid").unlink(missing_ok=True)
        arguments = settings.arguments(socket_folder.prepare(home))
        offset = cluster.rotate_log(home)
        cluster.spawn(home, pg, arguments, server_lock)
        return offset
    finally:
        os.close(server_lock)


def _evict(home: Home) -> None:
    """Clear away processes of the server that nobody can reach: orphans, or one whose socket was deleted."""
    pid_file = postmaster.read_pid_file(home)
    if pid_file is None:
        return
    if not postmaster.is_alive(pid_file.pid, home):
        postmaster.kill(home)
    elif pid_file.status == "ready" and is_unused(home):
        shut_down(home)


def _obeys(home: Home, number: signal.Signals) -> bool:
    return postmaster.signal_postmaster(home, number) and _wait_until_gone(home)


def _wait_until_gone(home: Home) -> bool:
    deadline = time.monotonic() + STOP_TIMEOUT
    while not (gone := _is_gone(home)) and time.monotonic() < deadline:
        time.sleep(flock.POLL_SECONDS)
    return gone


def _is_gone(home: Home) -> bool:
    return _is_free(home.server_lock, home)


def _is_free(lock: Path, home: Home) -> bool:
    held = flock.try_exclusive(lock, home.account)
    if held is not None:
        os.close(held)
    return held is not None


def _exited(home: Home, log_offset: int) -> EmbeddedServerError:
    tail = cluster.log_tail(home, log_offset)
    return EmbeddedServerError(str(home.path), f"postgres exited: {tail}", f"see {home.log}")
