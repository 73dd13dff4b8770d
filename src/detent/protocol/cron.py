"""`Cron`: when a schedule fires, and the rules for clocks that are changed. Pure arithmetic.

A pattern is about the clock on the wall of its time zone. Twice a year that clock is changed, and then:

- a time that the wall skips (spring) fires at the first moment after the gap, and several such times fire there once;
- a time that the wall shows twice (autumn) fires at the first of them only;
- but a pattern for every hour (`30 * * * *`) fires whenever the wall shows its time: at both, and not for one that is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from detent.duration import Duration, parse
from detent.errors import ConfigError, ScheduleError
from detent.protocol.environments import Environment, check

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from cronsim import CronSim

Overlap: TypeAlias = Literal["allow", "skip"]

UPCOMING = 10
LONGEST_WINDOW = timedelta(days=1)
SHORTEST_WINDOW = timedelta(minutes=1)
"""What a smaller window than this, but not none, is taken for."""
_LONGEST_REWIND = timedelta(hours=25)
"""No clock is ever put back by more than a day."""
_KNOWN = 20_000
_NO_ZONES = frozenset({"Factory", "localtime"})
_FIELDS = {
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31, or L for the last day",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT (0 and 7 are Sunday), 5L for the last Friday, or 1#2 for the second Monday",
}


@dataclass(frozen=True, slots=True)
class Cron:
    """When a schedule fires: a cron pattern in a time zone. Raises `ScheduleError`.

    Example::

        Cron("0 5 * * *", timezone="Asia/Tokyo")
    """

    pattern: str
    """Five fields: minute, hour, day of month, month, day of week; with lists, ranges, steps, names and `L`."""
    timezone: str = "UTC"
    """An IANA name. Daily at nine stays at nine there when the clocks change."""
    _: KW_ONLY
    window: Duration | None = None
    """Spreads schedules that share a pattern: each starts at a time of its own, always the same, so much after its tick at most.
    At most a day, or a part of the interval between two ticks: `"30%"`. None: at the tick."""
    environments: Sequence[str] = ()
    """On a task: the environments in which it is scheduled, by slug (`"eu-prod"`) or by type (`EnvironmentType.PRODUCTION`); none
    named is all."""
    overlap: Overlap = "allow"
    """`"skip"`: no run while the one before is not over."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", _checked_pattern(self.pattern))
        check_timezone(self.timezone)
        object.__setattr__(self, "window", window_text(self.window))
        object.__setattr__(self, "environments", _checked_environments(self.environments))
        if self.overlap not in get_args(Overlap):
            raise ScheduleError(f'overlap={self.overlap!r} must be "allow" or "skip"')

    def is_for(self, environment: Environment) -> bool:
        """Return whether a task is scheduled in an environment."""
        names = {environment.slug, environment.name, environment.type.lower()}
        return not self.environments or any(wanted.lower() in names for wanted in self.environments)

    def next_after(self, moment: datetime) -> datetime:
        """Return the first tick after a moment, in UTC. Raises `ValueError` for a naive one."""
        if moment.tzinfo is None:
            raise ValueError(f"{moment!r} has no time zone; use an aware datetime, such as datetime.now(UTC)")
        return next_tick(self.pattern, self.timezone, moment.astimezone(UTC))

    def upcoming(self, count: int = UPCOMING, *, after: datetime | None = None) -> tuple[datetime, ...]:
        """Return the next ticks, in UTC.

        >>> Cron("0 9 L * *").upcoming(2, after=datetime(2024, 2, 1, tzinfo=UTC))[0].isoformat()
        '2024-02-29T09:00:00+00:00'
        """
        ticks: list[datetime] = []
        moment = datetime.now(UTC) if after is None else after
        for _ in range(count):
            moment = self.next_after(moment)
            ticks.append(moment)
        return tuple(ticks)

    @property
    def description(self) -> str:
        """The pattern in words."""
        return _explained(self.pattern)


@lru_cache(maxsize=_KNOWN)
def next_tick(pattern: str, timezone: str, after: datetime) -> datetime:
    """Return the first tick after a moment. Both are in UTC; the answer is remembered, as many schedules share it."""
    zone = _zone(timezone)
    wall = after.astimezone(zone).replace(tzinfo=None)
    is_hourly = len(_parsed(pattern).hours) == 24
    rewind = _put_back(zone, after) if is_hourly else timedelta(0)
    found: list[datetime] = []
    for shown in _walls_after(pattern, wall - rewind):
        moments = _shown_at(shown, zone) if is_hourly else [_fires_at(shown, zone)]
        found += [moment for moment in moments if moment > after]
        if found and shown > wall:
            break
    return min(found)


@lru_cache(maxsize=_KNOWN)
def ticks_after(pattern: str, timezone: str, after: datetime, count: int = UPCOMING) -> tuple[datetime, ...]:
    """Return the next ticks after one, all in UTC."""
    return Cron(pattern, timezone).upcoming(count, after=after)


def _put_back(zone: ZoneInfo, moment: datetime) -> timedelta:
    """Return by how much the clock is put back soon after a moment: such times may come again."""
    before = moment.astimezone(zone).utcoffset()
    after = (moment + _LONGEST_REWIND).astimezone(zone).utcoffset()
    assert before is not None
    assert after is not None
    return max(before - after, timedelta(0))


def _shown_at(wall: datetime, zone: ZoneInfo) -> list[datetime]:
    """Return the moments at which a wall shows a time: one; or none, or two, around a change of its clock."""
    moments = {wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return sorted(moment for moment in moments if moment.astimezone(zone).replace(tzinfo=None) == wall)


def _fires_at(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return when a wall first shows a time, or when the gap ends in which it never does."""
    shown = _shown_at(wall, zone)
    if shown:
        return shown[0]
    late, early = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    offset = early.astimezone(zone).utcoffset()
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) // 2
        if middle.astimezone(zone).utcoffset() == offset:
            early = middle
        else:
            late = middle
    return late.replace(microsecond=0)


def _walls_after(pattern: str, wall: datetime) -> Iterator[datetime]:
    from copy import copy

    matching = copy(_parsed(pattern))
    matching.dt = wall.replace(microsecond=0)
    return matching


@lru_cache(maxsize=_KNOWN)
def _zone(name: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        if name not in _NO_ZONES:
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise ScheduleError(f"there is no time zone {name!r}{_nearest(name)}")


@lru_cache(maxsize=_KNOWN)
def _parsed(pattern: str) -> CronSim:
    from cronsim import CronSim

    return CronSim(pattern, datetime(2000, 1, 1))  # noqa: DTZ001 - what a wall shows


@lru_cache(maxsize=_KNOWN)
def _explained(pattern: str) -> str:
    return _parsed(pattern).explain()


def _checked_pattern(pattern: object) -> str:
    if not isinstance(pattern, str):
        raise ScheduleError(f'a cron pattern is text such as "0 5 * * *", not {pattern!r}')
    return _normal(pattern)


@lru_cache(maxsize=_KNOWN)
def _normal(pattern: str) -> str:
    from cronsim import CronSimError

    fields = pattern.split()
    if len(fields) != len(_FIELDS):
        why = "detent has no seconds" if len(fields) == len(_FIELDS) + 1 else "one looks like 0 5 * * *"
        raise ScheduleError(f'cron "{pattern}" has {len(fields)} fields, not five ({", ".join(_FIELDS)}); {why}')
    try:
        next(_walls_after(" ".join(fields), datetime(2000, 1, 1)))  # noqa: DTZ001 - as below
    except CronSimError as error:
        raise ScheduleError(_refusal(pattern, fields, str(error).removeprefix("Bad "))) from None
    except StopIteration:
        raise ScheduleError(f'cron "{pattern}" names a date that never comes; look at its day and month') from None
    return " ".join(fields)


def _refusal(pattern: str, fields: list[str], name: str) -> str:
    given = dict(zip(_FIELDS, fields, strict=True)).get(name, "")
    accepted = _FIELDS.get(name, "")
    return (
        f'the {name} of cron "{pattern}" cannot be "{given}"; it takes {accepted}, '
        "with lists (1,2), ranges (1-5), steps (*/2) and *"
    )


def check_timezone(name: object) -> None:
    """Raise `ScheduleError` for what is no IANA time zone, with the nearest name there is."""
    if not isinstance(name, str):
        raise ScheduleError(f'a time zone is an IANA name such as "Europe/Paris", not {name!r}')
    _zone(name)


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    cities = {zone.rpartition("/")[2].lower(): zone for zone in timezones()}
    names = cities | {zone.lower(): zone for zone in timezones()}
    near = get_close_matches(name.replace(" ", "_").lower(), names, n=1)
    return f'; did you mean "{names[near[0]]}"?' if near else "; `detent schedules timezones` lists all, such as Europe/Paris"


def timezones(*, exclude_utc: bool = False) -> list[str]:
    """Return the names of all time zones: UTC first, the others in order."""
    from zoneinfo import available_timezones

    others = sorted(available_timezones() - _NO_ZONES - {"UTC"})
    return others if exclude_utc else ["UTC", *others]


def window_text(window: object) -> str | None:
    """Return a window as it is stored. Raises `ScheduleError`.

    >>> [window_text(None), window_text("2h"), window_text("30%"), window_text(timedelta(minutes=5))]
    [None, '2h', '30%', '300s']
    """
    if window is None:
        return None
    text = window if isinstance(window, str) else f"{_seconds(window):g}s"
    spread(text, LONGEST_WINDOW)
    return text


def _seconds(window: object) -> float:
    try:
        return parse(window).total_seconds()  # type: ignore[arg-type]  # what is no duration is refused by it
    except ValueError as error:
        raise ScheduleError(f"window={window!r}: {error}") from None


def spread(window: str | None, interval: timedelta) -> timedelta:
    """Return how far after a tick a schedule may start, when the next tick comes after *interval*.

    >>> spread("50%", timedelta(hours=1)), spread("2h", timedelta(hours=1)), spread(None, timedelta(hours=1))
    (datetime.timedelta(seconds=1800), datetime.timedelta(seconds=3600), datetime.timedelta(0))
    """
    if window is None:
        return timedelta(0)
    if window.endswith("%"):
        return interval * _percentage(window)
    length = timedelta(seconds=_seconds(window))
    if length > LONGEST_WINDOW:
        raise ScheduleError(f'window="{window}" is longer than a day; use 24h at most, or a part of the interval such as 30%')
    return min(interval, max(length, SHORTEST_WINDOW)) if length else length


def _percentage(window: str) -> float:
    number = window[:-1]
    if not (number.isascii() and number.isdigit() and int(number) <= 100):
        raise ScheduleError(f'window="{window}" must be a whole percentage from 0% to 100%, or a duration such as 30m')
    return int(number) / 100


def _checked_environments(environments: object) -> tuple[str, ...]:
    if isinstance(environments, str) or not isinstance(environments, tuple | list | set | frozenset):
        raise ScheduleError(f'environments={environments!r} must be names in a list, such as ["prod"]')
    names = tuple(str(name) for name in environments)
    for name in names:
        try:
            check(name.lower())
        except ConfigError as error:
            raise ScheduleError(f"environments={environments!r}: {error}") from None
    return names
