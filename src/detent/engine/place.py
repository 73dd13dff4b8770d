"""What every operation of one backend works with: the database, the environment, and what is remembered about it."""

from __future__ import annotations

from dataclasses import dataclass

from detent.engine.alarm import Alarm
from detent.engine.db import Db
from detent.engine.environments import KnownEnvironment
from detent.engine.events import Notifier
from detent.engine.known_tasks import KnownTasks
from detent.engine.lanes import KnownLanes


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    db: Db
    here: KnownEnvironment
    notifier: Notifier
    alarm: Alarm
    lanes: KnownLanes
    tasks: KnownTasks

    @property
    def environment(self) -> int:
        return self.here.number
