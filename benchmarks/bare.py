"""What PostgreSQL itself does on this machine, without detent: the measure of everything else."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psycopg

from benchmarks.measuring import figure, median

COMMITS = 3000
JOBS = 50_000
BATCH = 500
IDLE_COMMITS = 100
IDLE_PAUSE = 0.05
"""Seconds between them, as between the triggers whose latency is measured."""

CREATE = """
create table public.bare_queue (
  id bigint primary key generated always as identity, payload text not null, claimed_at timestamptz)
"""
ENQUEUE_ONE = "insert into public.bare_queue (payload) values (%s)"
ENQUEUE = "insert into public.bare_queue (payload) select * from unnest(%s::text[])"
CLAIM = """
update public.bare_queue set claimed_at = clock_timestamp()
where id in (
  select id from public.bare_queue where claimed_at is null order by id limit %s for update skip locked)
returning id, payload
"""
DELETE = "delete from public.bare_queue where id = any(%s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    commit_p50_ms: float
    commits_per_s: float
    idle_commit_p50_ms: float
    """After a pause: both processes sleep, and must be woken. No latency on an idle system can be less."""
    enqueue_and_drain_per_s: float


def measure(dsn: str, scale: float) -> Bare:
    """Measure single commits, and a narrow queue table: insert, claim with skip locked and delete, in batches."""
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as connection:
        connection.execute(CREATE)
        commits = [_one_commit(connection) for _ in range(max(50, round(COMMITS * scale)))]
        idle = [_one_commit(connection, after=IDLE_PAUSE) for _ in range(max(10, round(IDLE_COMMITS * scale)))]
        connection.execute("truncate public.bare_queue")
        jobs = max(BATCH, round(JOBS * scale))
        seconds = _enqueue_and_drain(connection, jobs)
        connection.execute("drop table public.bare_queue")
    return Bare(
        commit_p50_ms=figure(median(commits) * 1000),
        commits_per_s=figure(len(commits) / sum(commits)),
        idle_commit_p50_ms=figure(median(idle) * 1000),
        enqueue_and_drain_per_s=figure(jobs / seconds),
    )


def _one_commit(connection: psycopg.Connection, after: float = 0.0) -> float:
    time.sleep(after)
    began = time.perf_counter()
    connection.execute(ENQUEUE_ONE, ('{"n":1}',))
    return time.perf_counter() - began


def _enqueue_and_drain(connection: psycopg.Connection, jobs: int) -> float:
    began = time.perf_counter()
    for first in range(0, jobs, BATCH):
        payloads = [f'{{"n":{n}}}' for n in range(first, min(first + BATCH, jobs))]
        connection.execute(ENQUEUE, (payloads,))
    while claimed := connection.execute(CLAIM, (BATCH,)).fetchall():
        connection.execute(DELETE, ([row[0] for row in claimed],))
    return time.perf_counter() - began
