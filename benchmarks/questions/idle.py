"""How many queries a second does a worker send that has nothing to do?"""

from __future__ import annotations

import time

import psycopg

from benchmarks.measuring import figure
from benchmarks.stage import Stage

SECONDS = 20.0
SETTLING = 12.0
"""A session that falls silent tells what it did 10 s later: what came before must not count as the idle worker's."""
COUNT = "select xact_commit + xact_rollback from pg_stat_database where datname = %s"


def answer(stage: Stage) -> dict[str, float]:
    seconds = max(5.0, SECONDS * stage.scale)
    # Asked from another database: what asks is not counted.
    with stage.database() as database, stage.worker(database), psycopg.connect(stage.dsn, autocommit=True) as outside:
        database.connection.execute("select pg_stat_force_next_flush()")
        time.sleep(SETTLING)
        before, began = _transactions(outside, database.name), time.monotonic()
        time.sleep(seconds)
        sent = _transactions(outside, database.name) - before
        return {"queries_per_s": figure(sent / (time.monotonic() - began))}


def _transactions(outside: psycopg.Connection, database: str) -> int:
    (count,) = outside.execute(COUNT, (database,)).fetchone() or (0,)
    return int(count)
