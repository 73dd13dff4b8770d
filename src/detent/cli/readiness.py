"""Saying that the worker serves: once, when its first runner is up."""

from __future__ import annotations

import asyncio
import time

from detent.cli import example
from detent.cli.lines import Lines
from detent.protocol.backend import CallerBackend
from detent.worker.persistence import persistently
from detent.worker.telling import EventKind, WorkerEvent


class Readiness:
    """Stands between the worker and the lines, and waits for the first runner. `began` is by the monotonic clock."""

    def __init__(self, lines: Lines, backend: CallerBackend, *, database: str, began: float) -> None:
        self._lines, self._backend, self._database, self._began = lines, backend, database, began
        self._is_up = asyncio.Event()

    def event(self, event: WorkerEvent) -> None:
        if event.kind is EventKind.UP:
            self._is_up.set()
        self._lines.event(event)

    async def announce(self) -> None:
        """Wait until the worker serves, and say so, with a call to try."""
        await self._is_up.wait()
        passed = time.monotonic() - self._began
        tasks = [task for task in await persistently(self._backend.list_tasks)() if task.has_live_worker]
        call = example.call(tasks[0]) if tasks else ""
        self._lines.ready(passed, self._database, [task.task_id for task in tasks], call)
