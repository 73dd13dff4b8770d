"""Waiting for runs to end, from outside a run: by announcement, with a look now and then in case one was lost."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterable

from detent.errors import ApiConnectionError, DetentError
from detent.protocol.backend import CallerBackend
from detent.protocol.ids import RunId
from detent.protocol.wake_ups import Wake

_LOOK_EVERY = 2.0
_LINGER = 30.0
_RECONNECT_AFTER = 0.5


class Watch:
    """One for each connection. It listens while somebody waits, and for half a minute longer."""

    def __init__(self, backend: CallerBackend) -> None:
        self._backend = backend
        self._waiting: dict[RunId, list[asyncio.Future[None]]] = {}
        self._listener: asyncio.Task[None] | None = None
        self._last_look = self._last_use = 0.0

    def expect(self, run_id: RunId) -> asyncio.Future[None]:
        """Return a future of the run's end: a hint, so that reading the run must follow.

        Of a run that was not triggered as watched, `look` must come first.
        """
        loop = asyncio.get_running_loop()
        end: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(run_id, []).append(end)
        end.add_done_callback(lambda _: self._forget(run_id, end))
        self._last_use = loop.time()
        if self._listener is None or self._listener.done():
            self._listener = loop.create_task(self._listen(), name="detent-watch", context=contextvars.Context())
        return end

    async def look(self, run_ids: Iterable[RunId]) -> None:
        """Ask how runs stand, and that the end of those still going be announced."""
        asked = [run_id for run_id in run_ids if run_id in self._waiting]
        if asked:
            for outcome in await self._backend.watch_runs(asked):
                if outcome is not None:
                    self._tell(outcome.run_id)

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        self._fail_all(ApiConnectionError("the connection was closed while a run was waited for"))

    async def _listen(self) -> None:
        while True:
            try:
                async with self._backend.listen() as wakes:
                    await self._look_at_all()
                    async for wake in wakes:
                        await self._take(wake)
                        if self._is_unused():
                            return
            except ApiConnectionError:
                await asyncio.sleep(_RECONNECT_AFTER)
            except DetentError as error:
                self._fail_all(error)
                return

    async def _take(self, wake: Wake) -> None:
        for run_id in wake.finished:
            self._tell(run_id)
        if not wake.finished and asyncio.get_running_loop().time() - self._last_look >= _LOOK_EVERY:
            await self._look_at_all()

    async def _look_at_all(self) -> None:
        self._last_look = asyncio.get_running_loop().time()
        await self.look(tuple(self._waiting))

    def _is_unused(self) -> bool:
        return not self._waiting and asyncio.get_running_loop().time() - self._last_use > _LINGER

    def _tell(self, run_id: RunId) -> None:
        for end in self._waiting.get(run_id, ()):
            if not end.done():
                end.set_result(None)

    def _fail_all(self, error: DetentError) -> None:
        for end in [end for ends in self._waiting.values() for end in ends]:
            if not end.done():
                end.set_exception(error)

    def _forget(self, run_id: RunId, end: asyncio.Future[None]) -> None:
        ends = self._waiting.get(run_id, [])
        if end in ends:
            ends.remove(end)
        if not ends:
            self._waiting.pop(run_id, None)
