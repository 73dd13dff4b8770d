"""Lines and lanes: where a run stands in order. Their ids are hashes of what they are, so that nobody has to look them up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from detent.engine.db import Db

_KNOWN_LANES = 100_000


@dataclass(frozen=True, slots=True)
class Lane:
    line_id: str
    lane_id: str
    queue: str
    concurrency_key: str | None
    task_id: str


@lru_cache(maxsize=_KNOWN_LANES)
def lane_of(environment: int, queue: str, concurrency_key: str | None, task_id: str) -> Lane:
    line = (environment, queue, concurrency_key)
    return Lane(_hash(*line), _hash(*line, task_id), queue, concurrency_key, task_id)


class KnownLanes:
    """Makes lanes before their first run, in a statement of its own, and remembers which exist."""

    def __init__(self, db: Db) -> None:
        self._db = db
        self._known: set[str] = set()

    async def ensure(self, environment: int, lanes: Iterable[Lane]) -> None:
        missing = {lane.lane_id: lane for lane in lanes if lane.lane_id not in self._known}
        if not missing:
            return
        rows = [
            {"lane": lane.lane_id, "line": lane.line_id, "queue": lane.queue, "ckey": lane.concurrency_key, "task": lane.task_id}
            for lane in missing.values()
        ]
        await self._db.call("make_lanes", {"environment": environment, "lanes": json.dumps(rows)})
        if len(self._known) + len(missing) > _KNOWN_LANES:
            self._known.clear()
        self._known.update(missing)


def _hash(*parts: int | str | None) -> str:
    return hashlib.md5(json.dumps(parts).encode(), usedforsecurity=False).hexdigest()
