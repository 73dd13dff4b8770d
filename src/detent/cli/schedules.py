"""`detent schedules`: when tasks run by themselves."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from detent.cli import failure, printing
from detent.cli.calling import call
from detent.cli.options import DEFAULT_ENVIRONMENT, Environment, Json

if TYPE_CHECKING:
    from detent.cli.calling import Caller
    from detent.protocol.cron import Cron
    from detent.protocol.schedules import ScheduleRecord
    from detent.sdk.schedules import ScheduleOptions

ScheduleArgument: TypeAlias = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Its id: sched_…")]
Timezone: TypeAlias = Annotated[str | None, typer.Option(help="An IANA name; without one: UTC.")]
Window: TypeAlias = Annotated[
    str | None, typer.Option(metavar="DURATION|N%", help="Start so much after the tick at most, each schedule at its own time.")
]
OverlapOption: TypeAlias = Annotated[
    Literal["allow", "skip"] | None, typer.Option(help="skip: no run while the one before is not over.")
]
ExternalId: TypeAlias = Annotated[str | None, typer.Option(help="An id of yours that runs are given.")]

app = typer.Typer(name="schedules", help="See when tasks run by themselves, and change it.", no_args_is_help=True)


@app.command("list")
def list_(environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False) -> None:
    """List schedules, the oldest first."""

    async def listed(caller: Caller) -> list[ScheduleRecord]:
        return [schedule async for schedule in caller.client.schedules.list(per_page=100)]

    found = call(environment, listed)
    if as_json:
        printing.as_json(found)
    elif not found:
        print(f'there is no schedule in environment "{environment}" yet; a worker declares them, or `detent schedules create`')
    else:
        printing.table(["SCHEDULE", "TASK", "CRON", "TIMEZONE", "TYPE", "NEXT RUN", "LAST RUN"], map(_row, found))


@app.command()
def create(
    task: Annotated[str, typer.Argument(help="The task's id.")],
    cron: Annotated[str, typer.Argument(help="Five fields, such as '0 5 * * *'.")],
    timezone: Timezone = None,
    window: Window = None,
    overlap: OverlapOption = None,
    external_id: ExternalId = None,
    key: Annotated[str | None, typer.Option(help="A deduplication key: what has it already is changed.")] = None,
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """Make a schedule, or change the one that has the key."""
    options = _options(task=task, cron=cron, timezone=timezone, window=window, overlap=overlap, external_id=external_id)
    _show(
        call(environment, lambda caller: caller.client.schedules.create(deduplication_key=key, **options)), as_json=as_json
    )


@app.command()
def show(
    schedule: ScheduleArgument, environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False
) -> None:
    """Show a schedule."""
    _show(call(environment, lambda caller: caller.client.schedules.retrieve(schedule)), as_json=as_json)


@app.command()
def update(
    schedule: ScheduleArgument,
    task: Annotated[str | None, typer.Option(help="The task's id.")] = None,
    cron: Annotated[str | None, typer.Option(help="Five fields, such as '0 5 * * *'.")] = None,
    timezone: Timezone = None,
    window: Window = None,
    overlap: OverlapOption = None,
    external_id: ExternalId = None,
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """Change what is given; the rest stays."""
    options = _options(task=task, cron=cron, timezone=timezone, window=window, overlap=overlap, external_id=external_id)
    if not options:
        raise failure.UsageError("nothing to change: give at least one option, such as --cron")
    _show(call(environment, lambda caller: caller.client.schedules.update(schedule, **options)), as_json=as_json)


@app.command()
def activate(
    schedule: ScheduleArgument, environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False
) -> None:
    """Let it run again, from its next tick on."""
    _show(call(environment, lambda caller: caller.client.schedules.activate(schedule)), as_json=as_json)


@app.command()
def deactivate(
    schedule: ScheduleArgument, environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False
) -> None:
    """Make no runs any more until it is activated."""
    _show(call(environment, lambda caller: caller.client.schedules.deactivate(schedule)), as_json=as_json)


@app.command()
def delete(
    schedule: ScheduleArgument, environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False
) -> None:
    """Remove it; its runs stay."""
    deleted = call(environment, lambda caller: caller.client.schedules.delete(schedule))
    if as_json:
        printing.as_json(deleted)
    else:
        print(f"{deleted.id} is deleted: {deleted.task_id}, {deleted.cron} {deleted.timezone}")


@app.command()
def timezones(as_json: Json = False) -> None:
    """List the names of all time zones."""
    from detent.protocol import cron

    names = cron.timezones()
    if as_json:
        printing.as_json(names)
    else:
        print("\n".join(names))


@app.command()
def preview(
    what: Annotated[str, typer.Argument(metavar="CRON|SCHEDULE", help="Five fields, such as '0 5 * * *'; or an id.")],
    timezone: Timezone = None,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 10,
    after: Annotated[
        str | None, typer.Option(metavar="DATE", help="From this date on, such as 2026-03-28; without it: from now on.")
    ] = None,
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """Show the next dates of a cron pattern, or of a schedule, in its time zone and in UTC."""
    from zoneinfo import ZoneInfo

    cron = _previewed(what, timezone, environment)
    ticks = cron.upcoming(count, after=_date(after, cron))
    local = [tick.astimezone(ZoneInfo(cron.timezone)) for tick in ticks]
    if as_json:
        printing.as_json({"cron": cron.pattern, "timezone": cron.timezone, "upcoming": [*ticks]})
        return
    print(f"{cron.description} ({cron.timezone})")
    rows = ([f"{there:%a %Y-%m-%d %H:%M %Z}", f"{tick:%Y-%m-%d %H:%M}"] for there, tick in zip(local, ticks, strict=True))
    printing.table([cron.timezone, "UTC"] if cron.timezone != "UTC" else ["DATE", "UTC"], rows)


def _previewed(what: str, timezone: str | None, environment: str) -> Cron:
    from detent.protocol.cron import Cron

    if not what.startswith("sched_"):
        return Cron(what, timezone or "UTC")
    schedule = call(environment, lambda caller: caller.client.schedules.retrieve(what))
    return Cron(schedule.cron, timezone or schedule.timezone)


def _date(text: str | None, cron: Cron) -> datetime | None:
    from zoneinfo import ZoneInfo

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise failure.UsageError(f"--after {text!r} is no date; write 2026-03-28 or 2026-03-28T12:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(cron.timezone))


def _options(
    *,
    task: str | None,
    cron: str | None,
    timezone: str | None,
    window: str | None,
    overlap: Literal["allow", "skip"] | None,
    external_id: str | None,
) -> ScheduleOptions:
    given: ScheduleOptions = {}
    if task is not None:
        given["task"] = task
    if cron is not None:
        given["cron"] = cron
    if timezone is not None:
        given["timezone"] = timezone
    if window is not None:
        given["window"] = window
    if overlap is not None:
        given["overlap"] = overlap
    if external_id is not None:
        given["external_id"] = external_id
    return given


def _row(schedule: ScheduleRecord) -> list[str]:
    following = "deactivated" if not schedule.is_active else "none" if schedule.obstacle else printing.ago(schedule.next_run_at)
    last = printing.ago(schedule.last_run_at)
    return [
        schedule.id, schedule.task_id, schedule.cron, schedule.timezone, schedule.type.value.lower(), following, last,
    ]  # fmt: skip


def _show(schedule: ScheduleRecord, *, as_json: bool) -> None:
    if as_json:
        printing.as_json(schedule)
        return
    facts = {field.name: getattr(schedule, field.name) for field in dataclasses.fields(schedule)}
    width = max(map(len, facts))
    for name, value in facts.items():
        if value is not None:
            print(f"{name.replace('_', ' '):<{width}}  {value}")
