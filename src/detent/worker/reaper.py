"""Finding and ending sessions whose worker is gone, by one's own clock only.

A session is dead when its heartbeat has stood still for 15 s during all of which the reaper itself was in contact with the
database: an outage, a clock that jumps, or a reaper that was stopped kills nobody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from detent.errors import ApiConnectionError
from detent.protocol import run_error
from detent.protocol.backend import WorkerBackend
from detent.protocol.ids import SessionId
from detent.protocol.run_error import ErrorCode
from detent.protocol.sessions import SessionBeat, SessionEnd
from detent.worker.children import Children
from detent.worker.solos import Solos

LEASE = 15.0
INTERVAL = 3.0
"""Seconds between looks; a look that comes much later than that counts as a loss of contact."""

log = logging.getLogger("detent.worker")


@dataclass(slots=True)
class _Seen:
    beat: int
    since: float


class Reaper:
    """Decides which sessions are dead."""

    def __init__(self) -> None:
        self._seen: dict[SessionId, _Seen] = {}
        self._last: float | None = None

    def lose_contact(self) -> None:
        """The database did not answer: what was seen before says nothing about the time in between."""
        self._last = None

    def observe(self, now: float, beats: Sequence[SessionBeat], own: Collection[SessionId]) -> list[SessionBeat]:
        """Return the dead sessions among those that are not ended; *own* ones are left to their supervisor."""
        if self._last is None or not 0 <= now - self._last <= 2 * INTERVAL:
            self._seen.clear()
        self._last = now
        others = [beat for beat in beats if beat.session_id not in own]
        self._seen = {beat.session_id: self._compared(now, beat) for beat in others}
        return [beat for beat in others if now - self._seen[beat.session_id].since >= LEASE]

    def _compared(self, now: float, beat: SessionBeat) -> _Seen:
        seen = self._seen.get(beat.session_id)
        return seen if seen is not None and seen.beat == beat.beat else _Seen(beat.beat, now)


class Reaping:
    """Ends the sessions of other workers that are dead, so that their runs are handed back."""

    def __init__(self, backend: WorkerBackend, children: Children, solos: Solos) -> None:
        self._backend, self._children, self._solos = backend, children, solos
        self._reaper = Reaper()

    async def reap_forever(self) -> None:
        while True:
            try:
                beats = await self._backend.list_sessions()
                for dead in self._reaper.observe(time.monotonic(), beats, self._children.sessions):
                    await self._reap(dead)
            except ApiConnectionError:
                self._reaper.lose_contact()
            except Exception:
                log.exception("looking for lost workers failed")
                self._reaper.lose_contact()
            await asyncio.sleep(INTERVAL)

    async def _reap(self, dead: SessionBeat) -> None:
        error = run_error.internal(ErrorCode.WORKER_LOST, f"its worker has given no sign of life for {LEASE:g} s")
        ended = await self._backend.end_session(
            SessionEnd(session_id=dead.session_id, error=error, is_lost=True, beat=dead.beat)
        )
        self._solos.expect(ended)
        log.warning("session %s of another worker is lost; %d runs are handed back", dead.session_id, ended.returned)
