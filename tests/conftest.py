"""Fixtures for databases.

The suite runs on the embedded server, or on the one that DETENT_TEST_DATABASE_URL names; with DETENT_TEST_POOLER=1 through
PgBouncer.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from psycopg import AsyncConnection

from detent.postgres import embedded, home, lifecycle
from detent.postgres.embedded import EmbeddedServer
from tests.database import FOLDER, Clock, Database, Server, hurry, open_database, server_at
from tests.kept import Keeper
from tests.nursery import Nursery
from tests.pooler import Pooler, direct, is_wanted, pooler_before, program

# Tests start hundreds of Pythons, and each would compile detent anew where an environment forbids to keep what was compiled. Of a
# test's own files nothing is kept: Python does not see that one was written twice in a second.
sys.dont_write_bytecode = False
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def pytest_collection_finish() -> None:
    sys.dont_write_bytecode = True


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[EmbeddedServer]:
    with embedded.start(FOLDER) as server:
        hurry(server.dsn)
        yield server


@pytest.fixture(scope="session")
def server_dsn(request: pytest.FixtureRequest) -> str:
    """The dsn of a PostgreSQL, whatever stands before it."""
    url = os.environ.get("DETENT_TEST_DATABASE_URL")
    return url or str(request.getfixturevalue("embedded_server").dsn)


@pytest.fixture(scope="session")
def pooler(server_dsn: str) -> Iterator[Pooler]:
    """A PgBouncer before the server. Tests that need one are left out where it is not installed."""
    if program() is None:
        pytest.skip("pgbouncer is not installed")
    with pooler_before(server_dsn) as pooler:
        yield pooler


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Server:
    """A server to create databases on."""
    return server_at(request.getfixturevalue("server_dsn"), request.getfixturevalue("pooler") if is_wanted() else None)


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    """The name of a migrated database to clone."""
    return server.template()


@pytest.fixture(scope="session")
def worker_database(server: Server, template: str) -> Iterator[Database]:
    with server.new_database(template) as dsn, open_database(dsn) as database:
        yield database


@pytest.fixture(scope="session")
def keeper(worker_database: Database) -> Iterator[Keeper]:
    """Keeps connections to the database that tests of this process share."""
    keeper = Keeper(worker_database.dsn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detent.engine.db.open_connection", keeper.open)
        yield keeper
    keeper.drop()


@pytest.fixture
def nothing_kept(keeper: Keeper) -> Iterator[None]:
    """For tests about connections: those that others have left are closed, and the test's own are when it closes them."""
    with keeper.off():
        yield


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Brings up processes that have loaded detent."""
    with closing(Nursery()) as nursery:
        yield nursery


@pytest.fixture
def database(worker_database: Database, keeper: Keeper) -> Iterator[Database]:
    """A migrated database without rows, emptied after the test."""
    yield worker_database
    worker_database.reset()


@pytest.fixture
def dsn(database: Database) -> str:
    """The dsn of a migrated database without rows, emptied after the test."""
    return database.dsn


@pytest.fixture
async def conn(dsn: str, keeper: Keeper) -> AsyncIterator[AsyncConnection]:
    """A connection to the test's database, in autocommit mode, and never through a pooler."""
    async with await keeper.open(direct(dsn)) as connection:
        yield connection


@pytest.fixture
def clock(database: Database) -> Clock:
    """Moves the time of the test's database: `clock.advance(timedelta(days=30))`."""
    return Clock(connection=database.connection)


@pytest.fixture
def fresh_dsn(server: Server, template: str) -> Iterator[str]:
    """A migrated database of the test's own, for tests that kill connections or need to be alone."""
    with server.new_database(template) as dsn:
        yield dsn


@pytest.fixture
def empty_dsn(server: Server) -> Iterator[str]:
    """A database of the test's own in which nothing was migrated."""
    with server.new_database() as dsn:
        yield dsn


@pytest.fixture
def project() -> Iterator[Path]:
    """A project's folder that any account may enter, as pytest's `tmp_path` may not; its server does not outlive it."""
    folder = Path(tempfile.mkdtemp(prefix="detent-project-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    if left := home.find(folder / ".detent"):
        lifecycle.shut_down(left)
        shutil.rmtree(left.path)
    shutil.rmtree(folder)
