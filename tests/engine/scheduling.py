"""What tests of schedules say to an engine."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from detent.engine.backend import EngineBackend
from detent.protocol import ids
from detent.protocol.cron import Cron
from detent.protocol.ids import ScheduleId
from detent.protocol.registration import TaskRegistration
from detent.protocol.runs import RunRecord
from detent.protocol.schedules import ScheduleChange, ScheduleRecord, ScheduleRequest
from detent.protocol.selection import RunSelection
from tests.database import Clock
from tests.engine.stage import Stage, task

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
EVERY_HOUR = Cron("0 * * * *")
PAYLOAD_SCHEMA = json.dumps({"type": "object", "required": ["timestamp"]})


def scheduled(task_id: str = "work", cron: Cron | None = EVERY_HOUR, **options: Any) -> TaskRegistration:
    return task(task_id, cron=cron, payload_schema=PAYLOAD_SCHEMA, **options)


async def create(stage: Stage, cron: Cron = EVERY_HOUR, task_id: str = "work", **options: Any) -> ScheduleRecord:
    request = ScheduleRequest(schedule_id=ids.new_schedule_id(), task_id=task_id, cron=cron, **options)
    (made,) = await stage.engine.create_schedules([request])
    assert isinstance(made, ScheduleRecord), made
    return made


async def change(stage: Stage, wanted: ScheduleChange) -> ScheduleRecord:
    (changed,) = await stage.engine.change_schedules([wanted])
    assert isinstance(changed, ScheduleRecord), changed
    return changed


async def retrieve(stage: Stage, schedule_id: ScheduleId) -> ScheduleRecord:
    (record,) = await stage.engine.retrieve_schedules([schedule_id])
    assert record is not None
    return record


async def all_schedules(stage: Stage) -> list[ScheduleRecord]:
    records, count = await stage.engine.list_schedules()
    assert len(records) == count
    return records


async def fire(engine: EngineBackend) -> None:
    """Fire all that is due."""
    maintenance = engine.maintenance
    while await maintenance.fire_schedules() < 0.02:
        pass
    await maintenance.close()


async def runs(stage: Stage) -> list[RunRecord]:
    return list(reversed(await stage.engine.list_runs(RunSelection(), limit=100)))


async def jump(stage: Stage, clock: Clock, moment: datetime) -> None:
    """Set the clock to a moment, to some milliseconds."""
    ((now,),) = await stage.query("select detent.now()")
    clock.advance(moment - now)


def next_of(record: ScheduleRecord) -> datetime:
    assert record.next_run_at is not None
    return record.next_run_at
