"""Asking for work: when there is room and something hints that there is work, and now and then in any case."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from detent.errors import ApiConnectionError
from detent.protocol.execution import Isolation
from detent.protocol.ids import SessionId
from detent.protocol.leases import Lease, LeaseRequest
from detent.worker.persistence import pauses
from detent.worker.room import Room

POLL = 2.0
"""Seconds after which lost wake-ups are made good."""

log = logging.getLogger("detent.worker")


class Leasing:
    """One lease call at a time. `announce` is told the fence of each before it is made; `receive` gets what came."""

    def __init__(
        self,
        lease: Callable[[LeaseRequest], Awaitable[Sequence[Lease]]],
        room: Room,
        *,
        announce: Callable[[int], Awaitable[None]],
        receive: Callable[[Sequence[Lease]], None],
    ) -> None:
        self._lease, self._room, self._announce, self._receive = lease, room, announce, receive
        self._wanted = asyncio.Event()
        # Kinds of which there may be ready runs: some were announced, or the last call did not ask for them.
        self._may_be_more = set[Isolation]()
        self._session: SessionId | None = None
        self.in_flight: set[int] = set()
        self.is_over = False

    def open(self, session: SessionId) -> None:
        """Lease under *session* from now on."""
        self._session = session
        self.wake()

    def close(self) -> None:
        """Lease no more until another session is opened."""
        self._session = None

    def end(self) -> None:
        """Lease no more at all."""
        self.is_over = True
        self.wake()

    def wake(self) -> None:
        """There may be work."""
        self._may_be_more.update(Isolation)
        self._wanted.set()

    def has_room(self, kind: Isolation) -> None:
        """A run of this kind has ended or waits."""
        if kind in self._may_be_more and not self._wanted.is_set() and self._room.is_worth_asking(kind):
            self._wanted.set()

    async def run(self) -> None:
        poll = asyncio.create_task(self._poll())
        try:
            while not self.is_over:
                await self._wanted.wait()
                self._wanted.clear()
                room = self._room.ask()
                if room and self._session is not None and not self.is_over:
                    await self._ask(self._session, room)
        finally:
            poll.cancel()

    async def _ask(self, session: SessionId, room: dict[Isolation, int]) -> None:
        fence = secrets.randbelow((1 << 63) - 1) + 1
        self.in_flight.add(fence)
        self._may_be_more.difference_update(room)
        try:
            await self._announce(fence)
            leases = await self._lease(LeaseRequest(session_id=session, fence=fence, room=room))
        except ApiConnectionError:
            # What the lost reply may have brought is handed back at the next renewal, which no longer names this fence.
            await self._failed(fence, 0.5)
            return
        except Exception:  # the loop of a runner must not end with one bad answer
            log.exception("a lease call failed; trying again")
            await self._failed(fence, 1.0)
            return
        finally:
            self.in_flight.discard(fence)
        if session != self._session and not self.is_over:
            return
        self._receive(leases)
        self._look_for_more(room, leases)

    def _look_for_more(self, room: Mapping[Isolation, int], leases: Sequence[Lease]) -> None:
        """A kind of which as many came as were asked for may have more."""
        came = Counter(lease.isolation for lease in leases)
        full = [kind for kind, asked in room.items() if came[kind] >= asked]
        if full:
            self._may_be_more.update(full)
            self._wanted.set()

    async def _failed(self, fence: int, pause: float) -> None:
        self.in_flight.discard(fence)
        self._receive(())
        if not self.is_over:
            self.wake()
            await asyncio.sleep(next(pauses(pause)))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL * random.uniform(0.8, 1.2))
            self._wanted.set()
