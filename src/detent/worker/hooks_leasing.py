"""Asking for runs that are over and whose final hooks no live attempt has called."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence

from detent.errors import ApiConnectionError
from detent.protocol.final_hooks import HooksLease, HooksRequest
from detent.protocol.ids import SessionId

POLL = 5.0
"""Seconds after which lost wake-ups are made good."""
MOST = 100
"""Runs of which one runner calls the hooks at once."""

log = logging.getLogger("detent.worker")


class HooksLeasing:
    """One call at a time, as long as fewer than `MOST` are under way."""

    def __init__(
        self,
        lease: Callable[[HooksRequest], Awaitable[Sequence[HooksLease]]],
        *,
        receive: Callable[[HooksLease], None],
        count: Callable[[], int],
    ) -> None:
        self._lease, self._receive, self._count = lease, receive, count
        self._wanted = asyncio.Event()
        self._session: SessionId | None = None
        self.in_flight: set[int] = set()

    def open(self, session: SessionId) -> None:
        """Lease under *session* from now on."""
        self._session = session
        self.wake()

    def close(self) -> None:
        """Lease no more until another session is opened."""
        self._session = None

    def wake(self) -> None:
        """Hooks may be due, or there is room for more."""
        self._wanted.set()

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(POLL * random.uniform(0.8, 1.2)):
                    await self._wanted.wait()
            except TimeoutError:
                pass  # nobody has said so, but there may be some all the same
            self._wanted.clear()
            most = MOST - self._count()
            if most > 0 and self._session is not None:
                await self._ask(self._session, most)

    async def _ask(self, session: SessionId, most: int) -> None:
        fence = secrets.randbelow((1 << 63) - 1) + 1
        self.in_flight.add(fence)
        try:
            leases = await self._lease(HooksRequest(session_id=session, fence=fence, most=most))
        except ApiConnectionError:
            return  # what the lost reply may have brought is let go at the next renewal, which no longer names this fence
        except Exception:  # the loop of a runner must not end with one bad answer
            log.exception("asking for final hooks failed; trying again")
            return
        finally:
            self.in_flight.discard(fence)
        if session != self._session:
            return
        for lease in leases:
            self._receive(lease)
        if len(leases) == most:
            self.wake()
