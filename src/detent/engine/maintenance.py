"""What nobody asked for but time: delays, retries and waits that fall due, partitions, what has expired.

Any number of processes may run it; each due row is taken once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

from detent.engine import retention
from detent.engine.db import Db, Row
from detent.engine.events import Notifier, announce
from detent.errors import DetentError

LONGEST_SLEEP = 1.0
SHORTEST_SLEEP = 0.005
HOUSEKEEPING_SECONDS = 3600.0
BUSY_SECONDS = 60.0
"""After housekeeping that somebody's lock stood in the way of."""
_MOST_DUE = 1000

log = logging.getLogger("detent.maintenance")


class Maintenance:
    """The ticker: sleeps until the next due row, at most a second."""

    def __init__(self, db: Db, notifiers: Mapping[int, Notifier] | None = None) -> None:
        self._db = db
        self._notifiers = dict(notifiers or {})

    async def run(self) -> None:
        """Tick and keep house until cancelled. An error is logged and tried again: due work must not stop for one bad moment."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._go_on(self.tick, "tick", LONGEST_SLEEP))
            both.create_task(self._go_on(self.keep_house, "housekeeping", BUSY_SECONDS))

    async def _go_on(self, work: Callable[[], Awaitable[float]], name: str, pause_after_error: float) -> None:
        while True:
            try:
                pause = await work()
            except DetentError as error:
                log.warning("%s failed, trying again: %s", name, error)
                pause = pause_after_error
            await asyncio.sleep(pause)

    async def tick(self) -> float:
        """Do what is due; return the seconds until something may be due again."""
        rows = await self._db.call("tick", {"most": _MOST_DUE})
        pause = LONGEST_SLEEP
        told: defaultdict[int, list[Row]] = defaultdict(list)
        for *row, environment, seconds in rows:
            if row[0] == "next":
                pause = _within_limits(cast("float | None", seconds))
            else:
                told[cast("int", environment)].append(tuple(row))
        for environment, told_there in told.items():
            announce(self._notifier(environment), environment, told_there)
        return pause

    async def keep_house(self) -> float:
        """Let go of what was kept long enough; return the seconds until that should be done again."""
        is_done = await retention.let_go(self._db)
        await self._db.call("forget_expired", {})
        await self._db.call("rest_lanes", {})
        await self.check_slots()
        return HOUSEKEEPING_SECONDS if is_done else BUSY_SECONDS

    async def check_slots(self) -> int:
        """Compare the counters of all limits with the runs that hold slots; return how many were wrong and are mended."""
        wrong = await self._db.call("find_miscounted", {})
        for environment, limits in wrong:
            log.error("slots of %d limits were counted wrongly; counted anew from the runs", len(cast("list[object]", limits)))
            await self._db.call("recount_slots", {"environment": environment, "limits": limits})
        return len(wrong)

    async def close(self) -> None:
        for notifier in self._notifiers.values():
            await notifier.close()

    def _notifier(self, environment: int) -> Notifier:
        return self._notifiers.setdefault(environment, Notifier(self._db))


def _within_limits(seconds: float | None) -> float:
    return LONGEST_SLEEP if seconds is None else min(LONGEST_SLEEP, max(SHORTEST_SLEEP, seconds))
