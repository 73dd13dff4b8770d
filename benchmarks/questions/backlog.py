"""Does leasing slow down when a million runs are queued?"""

from __future__ import annotations

import asyncio
import secrets
import time

from benchmarks import rows
from benchmarks.database import Database
from benchmarks.measuring import MeasurementError, figure
from benchmarks.stage import Stage
from benchmarks.tasks import noop
from detent.engine import backend
from detent.engine.backend import EngineBackend
from detent.protocol.ids import SessionId, new_session_id
from detent.protocol.models import Isolation, LeaseRequest, SessionOpening, WorkerRegistration
from detent.protocol.retry import Retry

SHORT, LONG = 1_000, 1_000_000
ROUNDS = 10
A_CALL = 250
"""What a runner with 500 slots asks for at once."""


def answer(stage: Stage) -> dict[str, float]:
    with stage.database() as database:
        alone = asyncio.run(_seconds(database))
    with stage.database() as database:
        behind = asyncio.run(_seconds(database, backlog=stage.sized(LONG)))
    return {"ratio": figure(alone / behind)}


async def _seconds(database: Database, *, backlog: int = 0) -> float:
    """Queue 1,000 runs and lease as many from the head of the queue, in calls as a runner makes them; so many times."""
    await noop.trigger({"n": 0})
    if backlog:
        rows.queue(database, backlog)
    engine = backend.connect(database.dsn)
    try:
        session = await _open_session(engine)
        return sum([await _round(database, engine, session) for _ in range(1 + ROUNDS)][1:])
    finally:
        await engine.close()


async def _round(database: Database, engine: EngineBackend, session: SessionId) -> float:
    rows.queue(database, SHORT)
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
