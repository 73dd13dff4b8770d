"""What `detent dev` and `detent worker` share: a supervisor, the engine's ticker beside it, and the signals that end both."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from detent.cli import database
from detent.cli.runner import COMMAND
from detent.duration import seconds
from detent.engine.backend import EngineBackend, connect
from detent.errors import ConfigError
from detent.sdk.config import Config
from detent.worker.settings import WorkerSettings
from detent.worker.supervisor import Supervisor
from detent.worker.telling import WorkerEvent

PATIENCE = 3.0
"""Seconds a call of the supervisor outlasts a database that is away, before it says so."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def settings_of(config: Config, *, database_url: str, environment: str, path: Path | None) -> WorkerSettings:
    """Return what a project's config, and a path given instead of its folders, say to its worker."""
    retry = config.retries.default
    return WorkerSettings(
        database_url=database_url,
        environment=environment,
        project=config.project,
        folder=str(config.root),
        sources=() if path is None else (_existing(path),),
        max_attempts=retry.max_attempts,
        retry_factor=retry.factor,
        retry_min=seconds(retry.min_timeout),
        retry_max=seconds(retry.max_timeout),
        retry_randomize=retry.randomize,
        oom_machine=retry.oom_machine,
        max_duration=config.max_duration,
        ttl=config.ttl,
        machine=config.machine,
        machines=config.machines,
        log_level=config.log_level,
        retention=config.retention.rules(),
        echo_output=bool(config.console.echo),
        capture_output=config.console.capture,
        process_keep_alive=config.process_keep_alive,
        extra_ca_certs=config.extra_ca_certs,
        has_telemetry=config.telemetry.is_on,
    )


def _existing(path: Path) -> str:
    if not path.exists():
        raise ConfigError(f"there is no file or folder {path}; name one that holds tasks")
    return str(path.resolve())


@asynccontextmanager
async def backend_for(settings: WorkerSettings) -> AsyncIterator[EngineBackend]:
    """Yield the supervisor's backend: one connection, and one to listen with."""
    backend = connect(
        settings.database_url,
        environment=settings.environment,
        size=1,
        patience=PATIENCE,
        listen_url=database.listened_to(),
        encryption_key=database.encryption_key(),
    )
    try:
        yield backend
    finally:
        await backend.close()


async def serve(
    settings: WorkerSettings,
    backend: EngineBackend,
    *,
    on_event: Callable[[WorkerEvent], None],
    on_signal: Callable[[int], None],
    beside: Callable[[Supervisor], Iterable[Coroutine[object, object, None]]],
) -> None:
    """Serve until a signal has drained the worker. Raises `ConfigError` when the tasks do not load.

    What runs `beside` it fails it, too. `on_signal` is told how many signals have come.
    """
    supervisor, ticker = Supervisor(settings, backend, COMMAND, on_event=on_event), backend.maintenance
    serving = asyncio.create_task(supervisor.run())
    tasks = [asyncio.create_task(work) for work in (ticker.run(), *beside(supervisor))]
    try:
        with _interrupting(supervisor, on_signal):
            pending = {serving, *tasks}
            while not serving.done():
                ended, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()
    finally:
        for task in (serving, *tasks):
            task.cancel()
        await asyncio.gather(serving, *tasks, return_exceptions=True)
        await ticker.close()


@contextmanager
def _interrupting(supervisor: Supervisor, on_signal: Callable[[int], None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM drain the worker, and a second one stop it at once."""
    loop, count = asyncio.get_running_loop(), 0

    def interrupted() -> None:
        nonlocal count
        count += 1
        supervisor.interrupted()
        on_signal(count)

    for number in _SIGNALS:
        loop.add_signal_handler(number, interrupted)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
