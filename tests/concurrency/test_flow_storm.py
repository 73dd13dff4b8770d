"""Six processes on one database: four that lease, one that triggers, one that changes limits and pauses."""

from __future__ import annotations

import subprocess
import sys

import psycopg

from tests.concurrency.flow_storm import RUNS, WATCH
from tests.pooler import direct

ROLES = ("trigger", "change", "lease", "lease", "lease", "lease")
PATIENCE = 60.0


def test_no_limit_is_exceeded_at_any_commit_and_everything_ends(fresh_dsn: str) -> None:
    dsn = direct(fresh_dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(WATCH)
        parties = [
            subprocess.Popen([sys.executable, "-m", "tests.concurrency.flow_storm", dsn, role, f"{role} {i}"])
            for i, role in enumerate(ROLES)
        ]
        try:
            assert [party.wait(PATIENCE) for party in parties] == [0] * len(ROLES)
        finally:
            for party in parties:
                party.kill()
                party.wait()
        assert connection.execute("select * from testing.excess").fetchall() == []
        assert connection.execute("select n >= %s from testing.checks", [RUNS]).fetchone() == (True,)
        assert connection.execute("select id from detent.gates where taken <> 0").fetchall() == []
        live = connection.execute("select count(*) from detent.runs").fetchone()
        past = connection.execute("select count(*) from detent.history").fetchone()
        assert live == (0,)
        assert past is not None
        assert past[0] >= RUNS
        counted = "select deadlocks from pg_stat_database where datname = current_database()"
        assert connection.execute(counted).fetchone() == (0,)
