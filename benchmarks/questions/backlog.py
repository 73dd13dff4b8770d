"""Does leasing slow down when a million runs are queued, in one line or in those of ten thousand tenants?"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

from benchmarks import rows
from benchmarks.database import Database
from benchmarks.measuring import MeasurementError, figure
from benchmarks.stage import Stage
from benchmarks.tasks import noop
from detent.engine import backend
from detent.engine.backend import EngineBackend
from detent.protocol.execution import Isolation
from detent.protocol.ids import SessionId, new_session_id
from detent.protocol.leases import LeaseRequest
from detent.protocol.registration import WorkerRegistration
from detent.protocol.retry import Retry
from detent.protocol.sessions import SessionOpening

SHORT, LONG = 1_000, 1_000_000
TENANTS, OF_A_TENANT = 10_000, 100
ROUNDS = 10
A_CALL = 250
"""What a runner with 500 slots asks for at once."""


def answer(stage: Stage) -> dict[str, float]:
    with stage.database() as database:
        alone = asyncio.run(_seconds(database))
    with stage.database() as database:
        behind = asyncio.run(_seconds(database, backlog=stage.sized(LONG)))
    with stage.database() as database:
        among = asyncio.run(_seconds_among_tenants(database, stage.sized(TENANTS), large=stage.sized(LONG)))
    return {"ratio": figure(alone / behind), "fair_ratio": figure(alone / among)}


async def _seconds(database: Database, *, backlog: int = 0) -> float:
    """Queue 1,000 runs and lease as many from the head of the queue, in calls as a runner makes them; so many times."""
    await noop.trigger({"n": 0})
    if backlog:
        rows.queue(database, backlog)
    return await _rounds(database, lambda: rows.queue(database, SHORT))


async def _seconds_among_tenants(database: Database, tenants: int, *, large: int) -> float:
    """Lease as often from the lines of many tenants, one of which has as many queued as all others."""
    made = await noop.batch_trigger([noop.item({"n": n}, concurrency_key=n) for n in range(1 + tenants)])
    rows.queue_each(database, made.runs[:1], large)
    rows.queue_each(database, made.runs[1:], OF_A_TENANT)
    return await _rounds(database, lambda: rows.settle_queue(database))


async def _rounds(database: Database, prepare: Callable[[], None]) -> float:
    engine = backend.connect(database.dsn)
    try:
        session = await _open_session(engine)
        return sum([await _round(engine, session, prepare) for _ in range(1 + ROUNDS)][1:])
    finally:
        await engine.close()


async def _round(engine: EngineBackend, session: SessionId, prepare: Callable[[], None]) -> float:
    prepare()
    began = time.monotonic()
    for _ in range(SHORT // A_CALL):
        await _lease(engine, session)
    return time.monotonic() - began


async def _open_session(engine: EngineBackend) -> SessionId:
    version = await engine.register_worker(WorkerRegistration(tasks=(noop.registration(Retry()),)))
    session = new_session_id()
    await engine.open_session(SessionOpening(session_id=session, version=version, worker="benchmark"))
    return session


async def _lease(engine: EngineBackend, session: SessionId) -> None:
    request = LeaseRequest(session_id=session, fence=secrets.randbelow(1 << 62) + 1, room={Isolation.ASYNC: A_CALL})
    leased = len(await engine.lease(request))
    if leased != A_CALL:
        raise MeasurementError(f"{leased} runs were leased instead of {A_CALL}, though more are queued")
