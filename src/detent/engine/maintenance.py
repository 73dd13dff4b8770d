"""What nobody asked for but time: delays, retries and waits that fall due, partitions, what has expired.

Any number of processes may run it; each due row is taken once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from typing import cast

from detent.engine.db import Db, Row
from detent.engine.events import Notifier, announce
from detent.errors import DetentError

LONGEST_SLEEP = 1.0
SHORTEST_SLEEP = 0.005
HOUSEKEEPING_SECONDS = 3600.0
PARTITION_DAYS = 7
_MOST_DUE = 1000

log = logging.getLogger("detent.maintenance")


class Maintenance:
    """The ticker: sleeps until the next due row, at most a second."""

    def __init__(self, db: Db, notifiers: Mapping[int, Notifier] | None = None) -> None:
        self._db = db
        self._notifiers = dict(notifiers or {})

    async def run(self) -> None:
        """Tick until cancelled. An error is logged and tried again: due work must not stop for one bad moment."""
        housekeeping_due = 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                if loop.time() >= housekeeping_due:
                    await self.keep_house()
                    housekeeping_due = loop.time() + HOUSEKEEPING_SECONDS
                pause = await self.tick()
            except DetentError as error:
                log.warning("tick failed, trying again: %s", error)
                pause = LONGEST_SLEEP
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

    async def keep_house(self) -> None:
        await self._db.call("make_partitions", {"days": PARTITION_DAYS})
        await self._db.call("forget_expired", {})
        await self._db.call("rest_lanes", {})
        await self.check_slots()

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
