"""What nobody asked for but time: delays, retries, waits and schedules that fall due, partitions, what has expired.

Any number of processes may run it; each due row is taken once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import cast

from detent.engine import bulk, environments, retention, ticks
from detent.engine.alarm import LONGEST_SLEEP, Alarm
from detent.engine.db import Db, Row
from detent.engine.events import Notifier, announce
from detent.engine.known_tasks import KnownTasks
from detent.engine.lanes import KnownLanes
from detent.engine.place import Place
from detent.errors import DetentError

SHORTEST_SLEEP = 0.005
HOUSEKEEPING_SECONDS = 3600.0
BUSY_SECONDS = 60.0
"""After housekeeping that somebody's lock stood in the way of."""
LONG_WORK_SECONDS = 2.0
"""Between looks for bulk actions and batches whose items stopped coming: an idle worker asks little."""
_MOST_DUE = 1000

log = logging.getLogger("detent.maintenance")


class Maintenance:
    """The ticker: sleeps until the next due row, at most a second."""

    def __init__(self, db: Db, notifiers: Mapping[int, Notifier] | None = None) -> None:
        self._db = db
        self._notifiers = dict(notifiers or {})
        self._places: dict[str, Place] = {}

    async def run(self) -> None:
        """Tick, keep house and carry on long work until cancelled.

        An error is logged and tried again: due work must not stop for one bad moment.
        """
        async with asyncio.TaskGroup() as works:
            works.create_task(self._go_on(self.tick, "tick", LONGEST_SLEEP))
            works.create_task(self._go_on(self.keep_house, "housekeeping", BUSY_SECONDS))
            works.create_task(self._go_on(self._work_on, "long work", LONGEST_SLEEP))
            works.create_task(self._go_on(self.fire_schedules, "schedules", LONGEST_SLEEP))

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
        self._announce([row[:-1] for row in rows if row[0] != "next"])
        pauses = [cast("float | None", seconds) for what, *_, seconds in rows if what == "next"]
        return _within_limits(pauses[0]) if pauses else LONGEST_SLEEP

    async def fire_schedules(self) -> float:
        """Fire some of the schedules that are due; return the seconds until more may be."""
        return max(SHORTEST_SLEEP, await ticks.fire_due(self._db, self._place))

    async def _work_on(self) -> float:
        return 0.0 if await self.carry_on() else LONG_WORK_SECONDS

    async def carry_on(self) -> bool:
        """Do what may wait a second: abort batches whose items stopped coming, and a part of a bulk action.

        True: there may be more to do at once.
        """
        self._announce(await self._db.call("abort_late_batches", {"most": _MOST_DUE}))
        return await bulk.carry_on(self._db, self._place)

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
        for place in self._places.values():
            place.alarm.close()
        for notifier in self._notifiers.values():
            await notifier.close()

    def _announce(self, rows: Iterable[Row]) -> None:
        """Tell others what was done, as each row says; the last column is the environment."""
        told: defaultdict[int, list[Row]] = defaultdict(list)
        for *row, environment in rows:
            told[cast("int", environment)].append(tuple(row))
        for environment, told_there in told.items():
            announce(self._notifier(environment), environment, told_there)

    async def _place(self, slug: str) -> Place:
        if slug not in self._places:
            here = await environments.find_or_make(self._db, slug)
            self._places[slug] = Place(
                db=self._db,
                here=here,
                notifier=self._notifier(here.number),
                alarm=Alarm(self.tick),
                lanes=KnownLanes(self._db),
                tasks=KnownTasks(self._db, here.number),
            )
        return self._places[slug]

    def _notifier(self, environment: int) -> Notifier:
        return self._notifiers.setdefault(environment, Notifier(self._db))


def _within_limits(seconds: float | None) -> float:
    return LONGEST_SLEEP if seconds is None else min(LONGEST_SLEEP, max(SHORTEST_SLEEP, seconds))
