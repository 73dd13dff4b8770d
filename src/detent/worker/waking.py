"""Wake-ups on their way from the database to the runners."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from detent.errors import ApiConnectionError
from detent.protocol.backend import WorkerBackend
from detent.protocol.wake_ups import Wake
from detent.worker.child import Child
from detent.worker.children import Children
from detent.worker.control import Cancelled, Work
from detent.worker.persistence import pauses
from detent.worker.vigil import Vigil

MANY = 4
"""Runs ready at once from which on every runner is woken, not one."""
SOLO_OFFER_SECONDS = 0.02
"""After which processes for one run are woken: they must not compete with the runners for the moment in which a run starts."""

log = logging.getLogger("detent.worker")


class Waking:
    """Decides which runners hear of a wake-up: a few ready runs wake one with room, each in its turn, many wake all."""

    def __init__(self, backend: WorkerBackend, children: Children, vigil: Vigil) -> None:
        self._backend, self._children, self._vigil = backend, children, vigil
        self._turn = 0
        self._solo_offer: asyncio.TimerHandle | None = None

    async def listen_forever(self) -> None:
        for pause in pauses():
            try:
                async with self._backend.listen() as wakes:
                    async for wake in wakes:
                        self.pass_on(wake)
            except ApiConnectionError:
                pass
            except Exception:
                log.exception("listening for wake-ups failed; polling meanwhile")
            await asyncio.sleep(pause)

    def pass_on(self, wake: Wake) -> None:
        working = self._children.working
        if wake.cancelled:
            self._vigil.cancel(time.monotonic(), wake.cancelled)
            for child in self._children:
                child.send(Cancelled(run_ids=wake.cancelled))
        for child in working:
            if child.session in wake.resumed:
                child.send(Work())
        if wake.ready:
            self._offer(wake.ready, working)

    def _offer(self, ready: int, working: Sequence[Child]) -> None:
        if any(child.is_solo for child in working) and self._solo_offer is None:
            self._solo_offer = asyncio.get_running_loop().call_later(SOLO_OFFER_SECONDS, self._offer_solos)
        runners = [
            child for child in working if not child.is_solo and child.has_room and not self._vigil.is_stuck(child)
        ]
        if not runners:
            return
        if ready < MANY:
            self._turn += 1
            runners = [runners[self._turn % len(runners)]]
        for child in runners:
            child.send(Work())

    def _offer_solos(self) -> None:
        self._solo_offer = None
        for child in self._children.working:
            if child.is_solo and child.has_room:
                child.send(Work())
