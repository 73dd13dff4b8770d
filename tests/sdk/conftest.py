"""Fixtures of the SDK's tests: an empty registry each, a run to be inside of, a database to speak to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from detent.engine.backend import EngineBackend, connect
from detent.sdk import portal, scope
from detent.sdk.declarations import declarations
from detent.sdk.registry import registry
from tests.pooler import direct, variables
from tests.sdk.fake_run import FakeRun


@pytest.fixture(autouse=True)
def empty_registry() -> Iterator[None]:
    known = registry.all()
    registry.clear()
    declarations.clear()
    yield
    registry.clear()
    declarations.clear()
    for task in known:
        registry.add(task)


@pytest.fixture
async def run() -> AsyncIterator[FakeRun]:
    """A run that the test's code belongs to."""
    run = FakeRun()
    token = scope._current.set(run)
    yield run
    scope._current.reset(token)


@pytest.fixture
def home(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The test's database as the default client's."""
    for name, value in variables(dsn).items():
        monkeypatch.setenv(name, value)
    yield dsn
    portal.close_portal()


@pytest.fixture
async def engine(home: str) -> AsyncIterator[EngineBackend]:
    """The engine behind the default client's database, to play the worker with."""
    backend = connect(home, patience=5.0, listen_url=direct(home))
    yield backend
    await backend.close()
