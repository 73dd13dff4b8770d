"""Are the disk, the lease and the trigger after a month of a million runs a day what they were in its second week?"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from benchmarks import rows
from benchmarks.database import Database
from benchmarks.measuring import MeasurementError, figure, median
from benchmarks.stage import Stage
from benchmarks.tasks import noop
from detent.engine import backend
from detent.engine.backend import EngineBackend
from detent.protocol.attempts import Succeeded
from detent.protocol.execution import Isolation
from detent.protocol.fence import Holder
from detent.protocol.ids import SessionId, new_run_id, new_session_id
from detent.protocol.leases import Lease, LeaseRequest
from detent.protocol.logs import LogLine
from detent.protocol.registration import WorkerRegistration
from detent.protocol.retention import Retention
from detent.protocol.retry import Retry
from detent.protocol.sessions import SessionOpening
from detent.protocol.triggering import TriggerRequest

DAYS = 30
RUNS_PER_DAY = 1_000_000
KEPT = Retention(default="5d")
"""Less than the default, so that the second week is already one in which as much goes as comes."""
SECOND_WEEK, LAST_WEEK = slice(7, 14), slice(-7, None)
MEASURED = 5_000
"""Runs a day that are really triggered, leased and completed."""
A_CALL = 250

MOVABLE_CLOCK = """
create table public.clock (is_only boolean primary key default true, shift interval not null);
insert into public.clock (shift) values ('0');
create or replace function detent.now() returns timestamptz language sql volatile parallel safe as
$$ select clock_timestamp() + (select shift from public.clock where is_only) $$
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    disk: float
    trigger_per_s: float
    lease_per_s: float


def answer(stage: Stage) -> dict[str, float]:
    count = stage.sized(RUNS_PER_DAY)
    with stage.database() as database:
        database.connection.execute(MOVABLE_CLOCK)
        days = asyncio.run(_month(database, count))
    return {
        "days": DAYS,
        "runs_per_day": count,
        "disk_ratio": _ratio([day.disk for day in days]),
        "lease_ratio": _ratio([day.lease_per_s for day in days]),
        "trigger_ratio": _ratio([day.trigger_per_s for day in days]),
    }


def _ratio(figures: Sequence[float]) -> float:
    return figure(median(figures[LAST_WEEK]) / median(figures[SECOND_WEEK]))


async def _month(database: Database, count: int) -> list[Day]:
    engine = backend.connect(database.dsn)
    try:
        session = await _open_session(engine)
        await _log_a_line(engine, session)
        return [await _day(database, engine, session, count) for _ in range(DAYS)]
    finally:
        await engine.close()


async def _open_session(engine: EngineBackend) -> SessionId:
    tasks = (noop.registration(Retry()),)
    version = await engine.register_worker(WorkerRegistration(tasks=tasks, retention=KEPT.rules()))
    session = new_session_id()
    await engine.open_session(SessionOpening(session_id=session, version=version, worker="benchmark"))
    return session


async def _log_a_line(engine: EngineBackend, session: SessionId) -> None:
    """Execute the run whose rows are copied."""
    await _trigger(engine, 1)
    (lease,) = await _lease(engine, session)
    holder, at = _holder(lease), lease.created_at
    line = LogLine(holder=holder, attempt=1, place="main/0", number=0, at=at, level="info", message="done")
    await engine.append_logs([line])
    await _complete(engine, [lease])


async def _day(database: Database, engine: EngineBackend, session: SessionId, count: int) -> Day:
    database.connection.execute("update public.clock set shift = shift + %s", (timedelta(days=1),))
    await engine.maintenance.keep_house()
    rows.finish_a_day(database, count)
    began = time.monotonic()
    await _trigger(engine, MEASURED)
    triggered = time.monotonic()
    leases = [lease for _ in range(MEASURED // A_CALL) for lease in await _lease(engine, session)]
    leased = time.monotonic()
    await _complete(engine, leases)
    if len(leases) != MEASURED:
        raise MeasurementError(f"{len(leases)} runs were leased instead of {MEASURED}")
    return Day(
        disk=database.number("select pg_database_size(current_database())"),
        trigger_per_s=MEASURED / (triggered - began),
        lease_per_s=MEASURED / (leased - triggered),
    )


async def _trigger(engine: EngineBackend, count: int) -> None:
    for first in range(0, count, A_CALL):
        size = min(A_CALL, count - first)
        await engine.trigger([TriggerRequest(run_id=new_run_id(), task_id=noop.id, payload="{}") for _ in range(size)])


async def _lease(engine: EngineBackend, session: SessionId) -> list[Lease]:
    fence = secrets.randbelow(1 << 62) + 1
    return await engine.lease(LeaseRequest(session_id=session, fence=fence, room={Isolation.ASYNC: A_CALL}))


async def _complete(engine: EngineBackend, leases: Sequence[Lease]) -> None:
    await engine.complete_attempts([Succeeded(holder=_holder(lease), output='"done"') for lease in leases])


def _holder(lease: Lease) -> Holder:
    return Holder(run_id=lease.run_id, fence=lease.fence)
