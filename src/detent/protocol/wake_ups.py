"""Wake-ups: hints that save a poll."""

from __future__ import annotations

from dataclasses import dataclass

from detent.protocol.ids import RunId, SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """A hint, never the truth: it can be lost, and says only where to look.

    `ready`: about so many runs became ready to start. `resumed`: sessions whose waiting runs became ready. `cancelled`: runs
    held by a worker that were asked to stop. `finished`: watched runs that are over.
    """

    ready: int = 0
    task_ids: tuple[str, ...] = ()
    """The tasks of the ready runs, where they are known."""
    resumed: tuple[SessionId, ...] = ()
    cancelled: tuple[RunId, ...] = ()
    finished: tuple[RunId, ...] = ()
