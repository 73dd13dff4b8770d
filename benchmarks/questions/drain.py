"""How fast does a default worker empty a queue of no-op runs, also while an old transaction keeps dead rows from going?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import psycopg

from benchmarks import rows
from benchmarks.database import Database
from benchmarks.measuring import figure, median
from benchmarks.stage import Stage
from benchmarks.tasks import noop
from benchmarks.worker import WARM_UP_RUNS, Worker
from detent import Item, batch

NoopItem: TypeAlias = Item[dict[str, int], int]

RUNS = 10_000
ROUNDS = 3
RUNS_BEFORE = 100_000
"""What came and went under the old transaction in its two hours: 14 runs a second."""


def answer(stage: Stage) -> dict[str, float]:
    count = stage.sized(RUNS)
    with stage.database() as database, stage.worker(database) as worker:
        plain = median([drain_per_s(database, worker, count) for _ in range(ROUNDS)])
        with _old_snapshot(database):
            _age(database, worker, stage.sized(RUNS_BEFORE))
            burdened = median([drain_per_s(database, worker, count) for _ in range(ROUNDS)])
        database.check_completed(WARM_UP_RUNS + 2 * ROUNDS * count + 1)
    return {
        "runs_per_s": figure(plain),
        "of_bare": figure(plain / stage.bare.enqueue_and_drain_per_s),
        "with_old_snapshot_per_s": figure(burdened),
    }


def drain_per_s(database: Database, worker: Worker, count: int) -> float:
    """Queue runs while the worker is held, let it go, and return how many a second it finishes."""
    return drain_items_per_s(database, worker, noops(count))


def drain_items_per_s(database: Database, worker: Worker, items: Sequence[NoopItem]) -> float:
    with worker.held():
        asyncio.run(_enqueue(items))
        began = time.monotonic()
    database.await_end_of_runs()
    return len(items) / (time.monotonic() - began)


def noops(count: int) -> list[NoopItem]:
    return [noop.item({"n": n}) for n in range(count)]


async def _enqueue(items: Sequence[NoopItem]) -> None:
    await batch.trigger(items)


@contextmanager
def _old_snapshot(database: Database) -> Iterator[None]:
    with psycopg.connect(database.dsn) as old:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old.execute("select count(*) from detent.runs")
        yield


def _age(database: Database, worker: Worker, count: int) -> None:
    with worker.held():
        asyncio.run(_enqueue(noops(1)))
        rows.come_and_go(database, count)
    database.await_end_of_runs()
