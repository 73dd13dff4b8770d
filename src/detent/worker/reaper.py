"""Finding sessions whose worker is gone, by one's own clock only.

A session is dead when its heartbeat has stood still for 15 s during all of which the reaper itself was in contact with the
database: an outage, a clock that jumps, or a reaper that was stopped kills nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from detent.protocol.ids import SessionId
from detent.protocol.sessions import SessionBeat

LEASE = 15.0
INTERVAL = 3.0
"""Seconds between looks; a look that comes much later than that counts as a loss of contact."""


@dataclass(slots=True)
class _Seen:
    beat: int
    since: float


class Reaper:
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
