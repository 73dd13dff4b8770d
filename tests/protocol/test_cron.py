"""When a pattern fires: against a count minute by minute, and in zones whose clocks do odd things."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from detent import Cron, ScheduleError
from detent.protocol.cron import SHORTEST_WINDOW, next_tick, spread, ticks_after, timezones, window_text

MINUTE = timedelta(minutes=1)
NASTY = {
    "Australia/Lord_Howe": ["2024-04-06T15:00", "2024-10-05T15:30"],  # by half an hour
    "America/St_Johns": ["2024-03-10T05:30", "2024-11-03T04:30", "2010-03-14T03:31"],  # at one minute past midnight, once
    "Asia/Kathmandu": ["2024-03-10T00:00"],  # a quarter of an hour off
    "Africa/Casablanca": ["2024-03-10T02:00", "2024-04-14T02:00"],  # summer but in Ramadan
    "Pacific/Apia": ["2011-12-30T10:00", "2012-03-31T14:00"],  # a day that never was
    "Africa/Cairo": ["2024-04-25T22:00", "2024-10-31T21:00"],  # at midnight
    "Europe/Berlin": ["2024-03-31T01:00", "2024-10-27T01:00"],
    "Europe/Dublin": ["2024-03-31T01:00", "2024-10-27T01:00"],  # winter is the exception
    "Antarctica/Troll": ["2024-03-31T01:00", "2024-10-27T01:00"],  # by two hours
    "America/Sao_Paulo": ["2018-11-04T03:00", "2018-02-18T02:00"],
    "Asia/Beirut": ["2022-03-26T22:00", "2022-10-29T21:00"],
    "America/Caracas": ["2016-05-01T07:00"],  # half an hour for good
    "Asia/Pyongyang": ["2018-05-04T14:30"],
    "Pacific/Kwajalein": ["1993-08-20T12:00"],
    "UTC": ["2024-02-29T00:00"],
}
"""Each with moments, in UTC, at which its clock is changed."""
CHANGES = [(zone, datetime.fromisoformat(f"{at}+00:00")) for zone, moments in NASTY.items() for at in moments]
PATTERNS = [
    "* * * * *", "*/15 * * * *", "30 * * * *", "0 0 * * *", "30 0 * * *", "0 1 * * *", "30 1 * * *", "0 2 * * *", "15,45 2 * * *",
    "30 2 * * 0", "30 3 * * *", "0 */2 * * *", "5-10 0-3 * * *", "0 5 30 12 *", "30 23 L * *", "59 23 * * 6L",
    "0 12 * JAN-MAR MON",
]  # fmt: skip


def brute_force(pattern: str, timezone: str, after: datetime, count: int, most_minutes: int) -> list[datetime]:
    """Look at the wall's clock every minute."""
    zone = ZoneInfo(timezone)
    matches = matcher(pattern)
    is_hourly = pattern.split()[1] == "*"
    ticks: list[datetime] = []
    moment = after.replace(second=0, microsecond=0)
    before = moment.astimezone(zone).replace(tzinfo=None)
    highest = max((moment - MINUTE * i).astimezone(zone).replace(tzinfo=None) for i in range(26 * 60))
    for _ in range(most_minutes):
        moment += MINUTE
        shown = moment.astimezone(zone).replace(tzinfo=None)
        if is_hourly:
            fires = matches(shown)
        else:
            skipped = (before + MINUTE * i for i in range(1, int((shown - before) / MINUTE)))
            fires = any(map(matches, skipped)) or (shown > highest and matches(shown))
        if fires:
            ticks.append(moment)
        before, highest = shown, max(highest, shown)
        if len(ticks) == count:
            break
    return ticks


def matcher(pattern: str) -> Callable[[datetime], bool]:
    read = CronSim(pattern, datetime(2000, 1, 1))

    def matches(wall: datetime) -> bool:
        is_near = wall.minute in read.minutes and wall.hour in read.hours
        return is_near and next(CronSim(pattern, wall - MINUTE)) == wall

    return matches


@pytest.mark.parametrize(("zone", "change"), CHANGES)
def test_ticks_around_a_change_are_those_of_a_count_by_minutes(zone: str, change: datetime) -> None:
    after = change - timedelta(hours=4)
    for pattern in PATTERNS:
        expected = brute_force(pattern, zone, after, 30, 34 * 60)
        assert list(ticks_after(pattern, zone, after, len(expected))) == expected, pattern


@given(
    change=st.sampled_from(CHANGES),
    before=st.integers(0, 30 * 60),
    minute=st.sampled_from(["*", "0", "30", "*/20", "7,52", "10-12"]),
    hour=st.sampled_from(["*", "0", "1", "2", "3", "*/2", "*/3", "0-4", "1,23"]),
    day=st.sampled_from(["*", "*/2", "L"]),
    weekday=st.sampled_from(["*", "0", "5,6", "1-5"]),
)
@settings(max_examples=150, deadline=None)
def test_next_tick_is_the_first_of_a_count_by_minutes(
    change: tuple[str, datetime], before: int, minute: str, hour: str, day: str, weekday: str
) -> None:
    zone, at = change
    pattern, after = f"{minute} {hour} {day} * {weekday}", at - MINUTE * before
    expected = brute_force(pattern, zone, after, 1, 40 * 60)

    found = next_tick(pattern, zone, after)
    assert [found] == expected or (not expected and found > after + MINUTE * 40 * 60)


@given(st.sampled_from(CHANGES), st.sampled_from(PATTERNS), st.timedeltas(timedelta(0), timedelta(days=2)))
@settings(max_examples=100, deadline=None)
def test_ticks_rise(change: tuple[str, datetime], pattern: str, before: timedelta) -> None:
    ticks = ticks_after(pattern, change[0], change[1] - before, 20)

    assert all(earlier < later for earlier, later in pairwise(ticks))


def local(zone: str, *ticks: datetime) -> list[str]:
    return [tick.astimezone(ZoneInfo(zone)).isoformat() for tick in ticks]


def test_daily_time_stays_the_same_on_the_wall() -> None:
    ticks = Cron("0 9 * * *", "Europe/Berlin").upcoming(2, after=datetime(2024, 3, 30, tzinfo=UTC))

    assert ticks[1] - ticks[0] == timedelta(hours=23)
    assert local("Europe/Berlin", *ticks) == ["2024-03-30T09:00:00+01:00", "2024-03-31T09:00:00+02:00"]


def test_time_that_does_not_exist_fires_at_the_next_that_does() -> None:
    (tick,) = Cron("30 2 * * *", "Europe/Berlin").upcoming(1, after=datetime(2024, 3, 30, 12, tzinfo=UTC))

    assert local("Europe/Berlin", tick) == ["2024-03-31T03:00:00+02:00"]


def test_time_that_comes_twice_fires_once() -> None:
    ticks = Cron("30 2 * * *", "Europe/Berlin").upcoming(2, after=datetime(2024, 10, 26, 12, tzinfo=UTC))

    assert local("Europe/Berlin", *ticks) == ["2024-10-27T02:30:00+02:00", "2024-10-28T02:30:00+01:00"]


def test_pattern_of_every_hour_fires_every_hour_whatever_the_clock_does() -> None:
    for day in (datetime(2024, 3, 30, 20, tzinfo=UTC), datetime(2024, 10, 26, 20, tzinfo=UTC)):
        ticks = Cron("30 * * * *", "Europe/Berlin").upcoming(12, after=day)
        assert {later - earlier for earlier, later in pairwise(ticks)} == {timedelta(hours=1)}


def test_day_that_never_was_fires_when_the_next_begins() -> None:
    ticks = Cron("0 5 * * *", "Pacific/Apia").upcoming(3, after=datetime(2011, 12, 29, tzinfo=UTC))

    assert local("Pacific/Apia", *ticks) == [
        "2011-12-29T05:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T05:00:00+14:00",
    ]  # fmt: skip


def test_l_is_the_last_day_and_the_last_weekday_of_a_month() -> None:
    january = datetime(2024, 1, 31, 12, tzinfo=UTC)

    assert [tick.day for tick in Cron("0 0 L * *").upcoming(3, after=january)] == [29, 31, 30]
    assert [tick.day for tick in Cron("0 0 * * 1L").upcoming(3, after=january)] == [26, 25, 29]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("0 25 * * *", r'the hour of cron "0 25 \* \* \*" cannot be "25"; it takes 0-23, with lists'),
        ("x * * * *", 'the minute of cron .* cannot be "x"'),
        ("0 0 1L * *", 'the day-of-month of cron .* cannot be "1L"; it takes 1-31, or L for the last day'),
        ("0 0 * 13 *", 'the month of cron .* cannot be "13"; it takes 1-12 or JAN-DEC'),
        ("0 0 * * 8", 'the day-of-week of cron .* cannot be "8"'),
        ("0 0 31 2 *", 'the day-of-month of cron .* cannot be "31"'),
        ("0 0 * *", "has 4 fields, not five"),
        ("0 0 0 * * *", "has 6 fields, not five .*; detent has no seconds"),
        ("", "has 0 fields"),
        (5, "a cron pattern is text"),
    ],
)
def test_bad_pattern_is_refused_by_its_field(pattern: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        Cron(pattern)


@pytest.mark.parametrize(
    ("zone", "message"),
    [
        ("Europe/Pari", 'there is no time zone \'Europe/Pari\'; did you mean "Europe/Paris"'),
        ("new york", 'did you mean "America/New_York"'),
        ("../UTC", "there is no time zone"),
        ("Europe", "there is no time zone"),
        (None, "a time zone is an IANA name such as"),
    ],
)
def test_unknown_time_zone_is_refused_with_the_nearest(zone: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        Cron("0 0 * * *", zone)


@pytest.mark.parametrize("window", ["101%", "-5%", "x%", "25h", "soon", -3, True])
def test_bad_window_is_refused(window: str) -> None:
    with pytest.raises(ScheduleError, match="window="):
        Cron("0 0 * * *", window=window)


def test_other_bad_options_are_refused() -> None:
    with pytest.raises(ScheduleError, match="overlap='queue' must be"):
        Cron("0 0 * * *", overlap="queue")  # type: ignore[arg-type]
    with pytest.raises(ScheduleError, match="environments='prod' must be names in a list"):
        Cron("0 0 * * *", environments="prod")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no time zone"):
        Cron("0 0 * * *").next_after(datetime(2024, 1, 1))


def test_window_ends_at_the_next_tick() -> None:
    hour = timedelta(hours=1)

    assert spread("2h", hour) == hour
    assert spread("10s", hour) == SHORTEST_WINDOW
    assert spread("0m", hour) == spread(None, hour) == spread("0%", hour) == timedelta(0)
    assert spread("50%", hour) == hour / 2
    assert window_text(90) == "90s"


def test_time_zones_begin_with_utc() -> None:
    names = timezones()

    assert names[0] == "UTC"
    assert names[1:] == sorted(names[1:]) == timezones(exclude_utc=True)
    for name in names:
        ZoneInfo(name)
