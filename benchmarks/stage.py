"""Where the questions are asked: an embedded server as shipped, in a scratch folder, with a database for each measurement."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from benchmarks.bare import Bare, measure
from benchmarks.database import Database
from benchmarks.worker import Worker, started
from detent.migrations import apply
from detent.postgres import embedded


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    dsn: str
    postgres: str
    scratch: Path
    scale: float
    bare: Bare
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def sized(self, full: int, *, least: int = 10) -> int:
        """Return how many of something to take at the scale of this run."""
        return max(least, round(full * self.scale))

    @contextmanager
    def database(self) -> Iterator[Database]:
        """A migrated database, dropped afterwards; event loops that begin inside it speak to it through the default client."""
        name = f"benchmark_{next(self.numbers)}"
        with psycopg.connect(self.dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            try:
                yield from _opened(make_conninfo(self.dsn, dbname=name), name)
            finally:
                admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    @contextmanager
    def worker(self, database: Database) -> Iterator[Worker]:
        """A `detent worker` process with the tasks of `tasks.py`, ready and warm."""
        with started(database, self.scratch / f"worker-{next(self.numbers)}.log") as worker:
            yield worker


@contextmanager
def set_up(scale: float) -> Iterator[Stage]:
    # Shipped defaults only, whatever the user has set.
    for name in [name for name in os.environ if name.startswith("DETENT_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="detent-benchmark-") as folder:
        scratch = Path(folder)
        # Else a server that root runs as another user would lie outside the folder, and stay behind.
        scratch.chmod(0o755)
        with embedded.start(scratch / ".detent") as server:
            yield Stage(
                dsn=server.dsn, postgres=server.version, scratch=scratch, scale=scale, bare=measure(server.dsn, scale)
            )


def _opened(dsn: str, name: str) -> Iterator[Database]:
    asyncio.run(apply(dsn))
    os.environ["DETENT_DATABASE_URL"] = dsn
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            yield Database(dsn=dsn, name=name, connection=connection)
    finally:
        del os.environ["DETENT_DATABASE_URL"]
