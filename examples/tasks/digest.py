"""What comes by itself: the digest every Monday, and for each reader who wants one a reminder at breakfast."""

from dataclasses import dataclass

from detent import Cron, ScheduledPayload, logger, retry, schedules, task


@dataclass
class Breakfast:
    reader: str
    timezone: str


@schedules.task(cron=Cron("0 9 * * MON", timezone="Europe/Berlin", window="10m", overlap="skip"), ttl="1d")
async def weekly_digest(payload: ScheduledPayload) -> str:
    """Print what was written since the digest before."""
    since = payload.last_timestamp.date() if payload.last_timestamp else "the beginning"
    return await retry.on_throw(lambda number: _print(f"all since {since}", number), max_attempts=3, min_timeout="10ms")


async def _print(text: str, number: int) -> str:
    if number == 1:
        raise ConnectionError("the printer sleeps, as it does on Mondays")
    return text


@schedules.task(id="breakfast")
async def remind_at_breakfast(payload: ScheduledPayload) -> None:
    logger.info("read something", reader=payload.external_id, time=f"{payload.local:%H:%M}")


@task
async def want_reminders(wanted: Breakfast) -> str:
    """Make a schedule for a reader, or change the one there is."""
    made = await schedules.create(
        task=remind_at_breakfast,
        cron="0 8 * * *",
        timezone=wanted.timezone,
        external_id=wanted.reader,
        deduplication_key=f"breakfast of {wanted.reader}",
    )
    return made.description
