"""Fixtures of the tests in which several connections meet."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from detent.engine.backend import EngineBackend, connect
from tests.concurrency.meeting import Blockade
from tests.engine.conftest import engine, stage, worker
from tests.engine.stage import Stage

__all__ = ["blockade", "engine", "engines", "stage", "worker"]


@pytest.fixture
async def engines(dsn: str, stage: Stage) -> AsyncIterator[list[EngineBackend]]:
    """Four engines, each with a connection of its own: four processes, as the database sees them."""
    made = [connect(dsn, size=1) for _ in range(4)]
    for each in made:
        await each.list_tasks()
    yield made
    for each in made:
        await each.close()


@pytest.fixture
async def blockade(dsn: str, stage: Stage) -> AsyncIterator[Blockade]:
    """A third party that holds rows locked, and sees who waits for it."""
    async with Blockade.open(dsn) as made:
        yield made


@pytest.fixture(autouse=True)
def no_alarms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time moves only when a test ticks: an alarm's own tick would hold a due row while the test's passes over it."""
    if "test_alarm" not in request.node.nodeid:
        monkeypatch.setattr("detent.engine.alarm.Alarm.set", lambda self, due: None)
