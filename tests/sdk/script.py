"""Scripts that use detent, in a Python of their own that takes every warning for an error."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tests.pooler import connections, direct, variables

PATIENCE = 60.0
_PREAMBLE = '''
import asyncio, multiprocessing, os, sys, threading
import psycopg
from detent import Client, runs, tasks

def servers():
    """The processes of the server that serve detent here, asked behind its back."""
    with psycopg.connect(os.environ["DIRECT"], autocommit=True) as connection:
        return {pid for (pid,) in connection.execute(
            "select pid from pg_stat_activity where datname = current_database() and application_name = 'detent'")}

def made():
    with psycopg.connect(os.environ["DIRECT"], autocommit=True) as connection:
        return connection.execute("select count(*) from detent.runs").fetchone()[0]
'''


def lines(script: str, dsn: str) -> list[str]:
    """Carry out a script and return what it printed; it must have said nothing else, and left no connection."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PREAMBLE + script],
        env=environment(dsn), capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (ended.stderr, ended.returncode) == ("", 0), ended.stdout + ended.stderr
    assert left(dsn) == 0
    return ended.stdout.splitlines()


def environment(dsn: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DETENT_")}
    return kept | variables(dsn) | {"DIRECT": direct(dsn)}


def left(dsn: str) -> int:
    """The connections that detent still has: a server takes a moment to notice that a client is gone."""
    deadline = time.monotonic() + PATIENCE
    while (count := connections(dsn)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return count
