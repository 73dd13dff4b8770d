"""A task that runs by itself each minute."""

from __future__ import annotations

from detent import ScheduledPayload, schedules


@schedules.task(id="declared", cron="* * * * *")
async def declared(payload: ScheduledPayload) -> str:
    return payload.timestamp.isoformat()


@schedules.task(id="made")
async def made(payload: ScheduledPayload) -> str:
    return payload.timestamp.isoformat()
