"""Sessions of runners: opened, renewed, ended."""

from __future__ import annotations

from dataclasses import dataclass

from detent.protocol.fence import Holder
from detent.protocol.ids import RunId, SessionId
from detent.protocol.run_error import RunError


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpening:
    session_id: SessionId
    version: str
    worker: str
    """Names the worker for people: host and pid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A sign of life of one runner, with what it really holds.

    Runs that the database assigns to the session but that are neither in `held` nor leased under a fence in `in_flight` (a
    lease call without an answer yet) came in a lost reply: they are handed back.
    """

    session_id: SessionId
    held: tuple[Holder, ...]
    in_flight: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """`is_alive` False: the session was ended by others, all its runs are gone. `lost`: runs of `held` that are not its own any
    more (handed on, cancelled and over). `cancelled`: held runs that were asked to stop."""

    session_id: SessionId
    is_alive: bool
    lost: tuple[RunId, ...] = ()
    cancelled: tuple[RunId, ...] = ()
    solo_waiting: int = 0
    """Ready runs of this environment that must start alone in a process of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionBeat:
    session_id: SessionId
    beat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnd:
    """A runner is gone. Its runs are handed back without using up an attempt, but for `suspects`: those on the CPU when it died.

    A suspect next starts alone; one that was already alone has crashed, with `error`. `is_lost`: found dead by another
    process (counts towards the five losses after which a run is given up), guarded by the heartbeat seen (`beat`).
    `unanswered`: fences of lease calls whose answer the runner never took: what they brought has not begun.
    """

    session_id: SessionId
    suspects: tuple[RunId, ...] = ()
    unanswered: tuple[int, ...] = ()
    error: RunError | None = None
    is_lost: bool = False
    beat: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded:
    """What became of a session's runs. `returned`: how many were handed back. `alone`: for each that must start in a process of
    its own, the seconds until it may."""

    returned: int
    alone: tuple[float, ...] = ()
