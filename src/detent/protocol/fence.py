"""Who speaks about a run: the worker that holds it, known by the fence of its lease."""

from __future__ import annotations

from dataclasses import dataclass

from detent.protocol.ids import RunId


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A worker speaking about a run it holds. Refused (`Stale`) when the fence is not the run's present one."""

    run_id: RunId
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """The answer to a call about a run that the caller no longer holds; nothing was written."""

    run_id: RunId
