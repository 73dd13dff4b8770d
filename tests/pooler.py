"""PgBouncer in transaction mode, in front of a server, for tests that go through it.

With `DETENT_TEST_POOLER=1` all of detent's connections in tests do, but those that listen; what tests themselves look up
or change behind its back goes directly.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

VARIABLE = "DETENT_TEST_POOLER"
PORT = 6432
_servers: dict[str, tuple[str, str]] = {}
"""Where the poolers of this process lead, by their folder."""
PATIENCE = 10.0
ALL = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'detent'"
LISTENING = f"{ALL} and query like 'listen %'"
# Every transaction may meet another server connection than the one before: what relies on a session fails soon.
SETTINGS = """
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr =
listen_port = {listen_port}
unix_socket_dir = {folder}
auth_type = trust
auth_file = {folder}/users
admin_users = postgres
pool_mode = transaction
server_round_robin = 1
default_pool_size = 20
max_client_conn = 1000
server_login_retry = 1
log_connections = 0
log_disconnections = 0
log_stats = 0
"""


def is_wanted() -> bool:
    return bool(os.environ.get(VARIABLE))


def direct(dsn: str) -> str:
    """The dsn of the same database without the pooler that may stand before it."""
    if (found := _servers.get(str(conninfo_to_dict(dsn).get("host")))) is None:
        return dsn
    host, port = found
    return make_conninfo(dsn, host=host, port=port)


def variables(dsn: str) -> dict[str, str]:
    """The environment variables that make detent use a database of the tests."""
    straight = direct(dsn)
    return {"DETENT_DATABASE_URL": dsn} | ({} if straight == dsn else {"DETENT_LISTEN_URL": straight})


def connections(dsn: str) -> int:
    """How many connections detent has to a database, those to a pooler and not those of a pooler."""
    facts = conninfo_to_dict(dsn)
    with psycopg.connect(direct(dsn), autocommit=True, prepare_threshold=None) as connection:
        row = connection.execute(LISTENING if direct(dsn) != dsn else ALL).fetchone() or (0,)
    return int(row[0]) + (_clients(dsn, str(facts["dbname"])) if direct(dsn) != dsn else 0)


def _clients(dsn: str, database: str) -> int:
    """Ask the pooler itself, which is a database of its own."""
    console = make_conninfo(dsn, dbname="pgbouncer")
    with psycopg.connect(console, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        rows = connection.cursor(row_factory=dict_row).execute("show clients").fetchall()
    return sum((row["database"], row["application_name"]) == (database, "detent") for row in rows)


def program() -> str | None:
    return shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


@dataclass(slots=True)
class Pooler:
    folder: Path
    process: subprocess.Popen[bytes]

    def before(self, dsn: str) -> str:
        """The dsn of a database, through the pooler. It is started again when it has ended: not all tests shall fail of that."""
        if self.process.poll() is not None:
            print(f"the pooler ended with code {self.process.returncode}: {(self.folder / 'log').read_text()[-2000:]}")
            self.start()
        return make_conninfo(dsn, host=str(self.folder), port=str(PORT))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        self.process = _launch(self.folder)


@contextmanager
def pooler_before(server: str) -> Iterator[Pooler]:
    """Start one before the server of a dsn, which must name a socket's folder; its databases are those of the server."""
    folder = Path(tempfile.mkdtemp(prefix="detent-pooler-", dir="/tmp"))
    facts = conninfo_to_dict(server)
    settings = SETTINGS.format(host=facts["host"], port=facts.get("port", 5432), folder=folder, listen_port=PORT)
    (folder / "pgbouncer.ini").write_text(settings)
    (folder / "users").write_text(f'"{facts["user"]}" ""\n')
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
        shutil.chown(path, os.stat(str(facts["host"])).st_uid)
    _servers[str(folder)] = str(facts["host"]), str(facts.get("port", 5432))
    pooler = Pooler(folder, _launch(folder))
    try:
        yield pooler
    finally:
        pooler.kill()
        del _servers[str(folder)]
        shutil.rmtree(folder)


def _launch(folder: Path) -> subprocess.Popen[bytes]:
    """Start it, as the account that owns the server's socket: it refuses to run as root."""
    found = program()
    if found is None:
        raise FileNotFoundError("pgbouncer is not installed")
    owner = folder.stat().st_uid
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [found, str(folder / "pgbouncer.ini")],
            user=None if owner == os.geteuid() else owner,
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
    deadline = time.monotonic() + PATIENCE
    while not _accepts(folder):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ChildProcessError((folder / "log").read_text())
    return process


def _accepts(folder: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as end:
        return end.connect_ex(str(folder / f".s.PGSQL.{PORT}")) == 0
