from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from detent.engine.backend import EngineBackend, connect
from detent.protocol import ids
from detent.protocol.sessions import SessionEnd
from detent.protocol.wake_ups import Wake
from detent.sdk.declarations import declarations
from detent.sdk.hooks import global_hooks
from detent.sdk.registry import registry
from detent.worker.capture import capturing
from detent.worker.confinement import Confinement
from detent.worker.control import Cancelled, Up, Work
from detent.worker.note import Note
from detent.worker.runner import Runner
from detent.worker.settings import WorkerSettings
from detent.worker.telemetry import RunTelemetry
from tests.database import Clock
from tests.pooler import direct
from tests.worker.rig import Rig, Supervision

StartRig = Callable[..., AbstractAsyncContextManager[Rig]]


@pytest.fixture(autouse=True)
def empty_registry() -> Iterator[None]:
    """The tasks, queues, limits and hooks of one test only."""
    registry.clear()
    declarations.clear()
    global_hooks.clear()
    yield
    registry.clear()
    declarations.clear()
    global_hooks.clear()


@pytest.fixture
def start_rig(dsn: str, clock: Clock) -> StartRig:
    """Starts a runner, once the test has defined its tasks; it is drained afterwards."""

    @asynccontextmanager
    async def start(
        *,
        is_solo: bool = False,
        confinement: Confinement | None = None,
        telemetry: RunTelemetry | None = None,
        **settings: object,
    ) -> AsyncIterator[Rig]:
        backend = connect(dsn, listen_url=direct(dsn))
        note, _ = Note.create()
        supervision, session = Supervision(), ids.new_session_id()
        told = WorkerSettings(database_url=dsn, retry_min=0.001, retry_max=0.001, send_events=True, **settings)  # type: ignore[arg-type]
        with capturing(log_level=told.log_level, echo=False) as capture:
            runner = Runner(
                told, backend, supervision, note, capture, is_solo=is_solo, confinement=confinement, telemetry=telemetry
            )
            serving = asyncio.create_task(runner.run(session))
            await supervision.until(Up)
            try:
                async with _attending(backend, runner):
                    try:
                        yield Rig(runner, backend, session, supervision, note, clock)
                    finally:
                        runner.drain(0)
                        await serving
            finally:
                await runner.close()
                await backend.end_session(SessionEnd(session_id=session))
                await backend.close()
                note.close()

    return start


@asynccontextmanager
async def _attending(backend: EngineBackend, runner: Runner) -> AsyncIterator[None]:
    """Do what a supervisor does for its runner; it hears from before the first tick, which may already wake a run."""
    async with backend.listen() as wakes:
        helpers = [asyncio.create_task(_pass_on(wakes, runner)), asyncio.create_task(backend.maintenance.run())]
        try:
            yield
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)


async def _pass_on(wakes: AsyncIterator[Wake], runner: Runner) -> None:
    async for wake in wakes:
        if wake.ready or wake.resumed:
            runner.receive(Work())
        if wake.cancelled:
            runner.receive(Cancelled(run_ids=wake.cancelled))
