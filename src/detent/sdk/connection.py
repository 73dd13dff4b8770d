"""A backend on one event loop, with what its callers share: gathered triggers, and the watch for ends.

A backend lives on the loop that first used it, and ends with that loop: the guard is an async generator, which `asyncio.run`
closes before the loop goes, so that `asyncio.run(main())` leaves no connection behind though nobody said `close`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING
from weakref import WeakSet

from detent.protocol.backend import CallerBackend
from detent.protocol.coalesce import Coalescer
from detent.protocol.ids import RunId
from detent.protocol.refusal import Refused
from detent.protocol.runs import RunRecord
from detent.protocol.triggering import Triggered, TriggerRequest
from detent.sdk.watch import Watch

if TYPE_CHECKING:
    from detent.protocol.schedules import ScheduleRecord, ScheduleRequest


class Connection:
    def __init__(self, backend: CallerBackend) -> None:
        self.backend = backend
        self.trigger: Coalescer[TriggerRequest, Triggered | Refused] = Coalescer(backend.trigger, weigh=_weight)
        self.retrieve: Coalescer[RunId, RunRecord | None] = Coalescer(backend.retrieve_runs)
        self.create_schedule: Coalescer[ScheduleRequest, ScheduleRecord | Refused] = Coalescer(backend.create_schedules)
        self.watch = Watch(backend)

    async def close(self) -> None:
        await self.watch.close()
        await self.backend.close()


def _weight(request: TriggerRequest) -> int:
    return len(request.payload or "") + len(request.metadata or "")


async def close_here() -> None:
    """Close every connection of the running loop, once what it still has to send is sent."""
    for connections in tuple(_all):
        await connections.close()


class Connections:
    """The connections to one target: one for each event loop, and none that came over a fork."""

    def __init__(self, connect: Callable[[], CallerBackend]) -> None:
        self._connect = connect
        self._pid = os.getpid()
        self._guarded: dict[asyncio.AbstractEventLoop, tuple[Connection, AsyncGenerator[None, None]]] = {}
        _all.add(self)

    def here(self) -> Connection:
        """Return the running loop's connection, made now if there is none. It opens itself at its first call."""
        if self._pid != os.getpid():
            self.leave_to_parent()  # forked by C code that calls no hooks
        loop = asyncio.get_running_loop()
        guarded = self._guarded.get(loop)
        return self._open(loop) if guarded is None else guarded[0]

    async def close(self) -> None:
        """Close the running loop's connection; it is opened anew when it is needed again."""
        guarded = self._guarded.get(asyncio.get_running_loop())
        if guarded is not None:
            await guarded[1].aclose()

    def _open(self, loop: asyncio.AbstractEventLoop) -> Connection:
        for old in [old for old in self._guarded if old.is_closed()]:
            del self._guarded[old]
        connection = Connection(self._connect())
        guard = self._guard(loop, connection)
        with contextlib.suppress(StopIteration):  # runs to its yield, which makes it known to the loop
            guard.__anext__().__await__().send(None)
        self._guarded[loop] = connection, guard
        return connection

    async def _guard(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._guarded.pop(loop, None)
            await connection.close()

    def leave_to_parent(self) -> None:
        """Forget, in a forked child, what the parent has opened."""
        _keep_for_ever(self._guarded)
        self._guarded = {}
        self._pid = os.getpid()


def _keep_for_ever(inherited: object) -> None:
    """Let nothing of it be closed or collected, not even as the child ends.

    The sockets are the parent's, too, and so are the queues of its event loops: what finalisers do to them, they do to it.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


def _leave_all_to_parent() -> None:
    for connections in tuple(_all):
        connections.leave_to_parent()


_all: WeakSet[Connections] = WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_to_parent)
