"""Fixtures of the engine's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from psycopg import AsyncConnection

from detent.engine.backend import EngineBackend, connect
from tests.engine.invariants import broken_rules
from tests.engine.stage import Stage, Worker
from tests.pooler import direct


@pytest.fixture
async def engine(dsn: str) -> AsyncIterator[EngineBackend]:
    backend = connect(dsn, patience=5.0, listen_url=direct(dsn))
    yield backend
    await backend.close()


@pytest.fixture
async def stage(engine: EngineBackend, conn: AsyncConnection) -> AsyncIterator[Stage]:
    """An engine on an empty database; whatever a test does, it leaves the tables consistent."""
    yield Stage(engine, conn)
    assert await broken_rules(conn) == {}


@pytest.fixture
async def worker(stage: Stage) -> Worker:
    """A worker that has task `work`: asynchronous, three attempts."""
    return await stage.worker("work")


@pytest.fixture(autouse=True)
def no_alarms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time moves only when a test ticks: an alarm's own tick would hold a due row while the test's passes over it."""
    if "test_alarm" not in request.node.nodeid:
        monkeypatch.setattr("detent.engine.alarm.Alarm.set", lambda self, due: None)
