"""Lines and lanes: where a run stands in order. Their ids are hashes of what they are, so that nobody has to look them up."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from detent.engine.db import Db

_KNOWN_LANES = 100_000
_REMEMBERED_SECONDS = 3600.0
"""After that a lane is made again, which tells the database that it is in use."""


@dataclass(frozen=True, slots=True)
class Lane:
    line_id: str
    lane_id: str
    queue: str
    concurrency_key: str | None
    task_id: str
    limits: tuple[str, ...] | None = None
    version_id: int | None = None
    is_pinned: bool = False
    base_id: str | None = None

    @property
    def may_sleep(self) -> bool:
        """Whether it is left alone while nothing is ready in it: there may be very many of its sort."""
        return self.concurrency_key is not None or self.version_id is not None


@lru_cache(maxsize=_KNOWN_LANES)
def lane_of(
    environment: int,
    queue: str,
    concurrency_key: str | None,
    task_id: str,
    limits: tuple[str, ...] | None = None,
    pinned_to: int | None = None,
) -> Lane:
    line = (environment, queue, concurrency_key)
    lane_id = _hash(*line, task_id, limits, pinned_to)
    return Lane(_hash(*line), lane_id, queue, concurrency_key, task_id, limits, pinned_to, pinned_to is not None)


@lru_cache(maxsize=_KNOWN_LANES)
def bound(lane: Lane, version_id: int) -> Lane:
    """Return the lane of such runs that a version goes on with while it lives: the one that `detent.bound_lane` names."""
    text = f"{UUID(lane.lane_id)}:{version_id}"
    lane_id = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    return Lane(
        lane.line_id, lane_id, lane.queue, lane.concurrency_key, lane.task_id, lane.limits, version_id, False, lane.lane_id
    )


class KnownLanes:
    """Makes lanes before their first run, in a statement of its own, and remembers which exist."""

    def __init__(self, db: Db) -> None:
        self._db = db
        self._known: dict[str, float] = {}

    async def ensure(self, environment: int, lanes: Iterable[Lane]) -> None:
        now = time.monotonic()
        missing = {lane.lane_id: lane for lane in lanes if self._known.get(lane.lane_id, 0.0) < now}
        if not missing:
            return
        rows = json.dumps([_fields(lane) for lane in missing.values()])
        await self._db.call("make_lanes", {"environment": environment, "lanes": rows})
        if len(self._known) + len(missing) > _KNOWN_LANES:
            self._known.clear()
        self._known.update(dict.fromkeys(missing, now + _REMEMBERED_SECONDS))


def _fields(lane: Lane) -> dict[str, object]:
    return {
        "lane": lane.lane_id,
        "line": lane.line_id,
        "task": lane.task_id,
        "queue": lane.queue,
        "ckey": lane.concurrency_key,
        "limits": lane.limits,
        "version": lane.version_id,
        "pinned": lane.is_pinned,
        "base": lane.base_id,
    }


def _hash(*parts: object) -> str:
    # As PostgreSQL writes jsonb: `detent.hash_of` makes the same lanes.
    return hashlib.md5(json.dumps(parts, ensure_ascii=False).encode(), usedforsecurity=False).hexdigest()
