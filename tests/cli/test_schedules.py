"""`detent schedules`, on a database."""

from __future__ import annotations

import pytest

from detent.engine.backend import connect
from detent.protocol import ids
from tests.cli.conftest import Detent
from tests.engine.scheduling import scheduled
from tests.engine.stage import registration
from tests.pooler import direct


@pytest.fixture
async def known(at_database: Detent, dsn: str) -> None:
    """A worker has registered the scheduled task `report`."""
    backend = connect(dsn, listen_url=direct(dsn))
    await backend.register_worker(registration(scheduled("report", cron=None)))
    await backend.close()


@pytest.mark.usefixtures("known")
def test_schedule_is_made_shown_changed_and_deleted(at_database: Detent) -> None:
    made = at_database(
        "schedules", "create", "report", "0 5 * * *", "--timezone", "Asia/Tokyo", "--key", "daily", "--json"
    ).json
    assert (made["cron"], made["timezone"], made["deduplication_key"]) == ("0 5 * * *", "Asia/Tokyo", "daily")
    schedule = made["id"]
    assert at_database("schedules", "show", schedule, "--json").json == made
    shown = at_database("schedules", "show", schedule).out
    assert "description" in shown
    assert "At 05:00 every day" in shown

    changed = at_database("schedules", "update", schedule, "--cron", "0 6 * * *", "--overlap", "skip", "--json").json
    assert (changed["cron"], changed["timezone"], changed["overlap"]) == ("0 6 * * *", "Asia/Tokyo", "skip")
    assert at_database("schedules", "deactivate", schedule, "--json").json["is_active"] is False
    assert "deactivated" in at_database("schedules", "list").out
    assert at_database("schedules", "activate", schedule, "--json").json["is_active"] is True
    assert at_database("schedules", "delete", schedule).out == f"{schedule} is deleted: report, 0 6 * * * Asia/Tokyo\n"
    assert "there is no schedule in environment" in at_database("schedules", "list").out


def test_preview_shows_dates_here_and_in_utc(detent: Detent) -> None:
    done = detent("schedules", "preview", "30 2 * * *", "--timezone", "Europe/Berlin", "--after", "2024-03-30", "--count", "2")

    lines = [line.split() for line in done.out.splitlines()]
    assert done.out.startswith("At 02:30 every day (Europe/Berlin)")
    assert lines[2:] == [
        ["Sat", "2024-03-30", "02:30", "CET", "2024-03-30", "01:30"],
        ["Sun", "2024-03-31", "03:00", "CEST", "2024-03-31", "01:00"],
    ]


@pytest.mark.usefixtures("known")
def test_preview_of_a_schedule_is_in_its_time_zone(at_database: Detent) -> None:
    made = at_database("schedules", "create", "report", "0 5 * * *", "--timezone", "Asia/Tokyo", "--json").json

    preview = at_database("schedules", "preview", made["id"], "--json").json
    assert (preview["timezone"], len(preview["upcoming"])) == ("Asia/Tokyo", 10)
    assert all("T20:00:00+00:00" in tick for tick in preview["upcoming"])


def test_time_zones_are_listed(detent: Detent) -> None:
    assert detent("schedules", "timezones").out.startswith("UTC\nAfrica/Abidjan\n")
    assert "Asia/Tokyo" in detent("schedules", "timezones", "--json").json


@pytest.mark.usefixtures("known")
def test_refusals_are_sentences(at_database: Detent) -> None:
    bad = at_database("schedules", "create", "report", "0 25 * * *")
    assert (bad.code, bad.out) == (1, "")
    assert bad.err.startswith('error: the hour of cron "0 25 * * *" cannot be "25"; it takes 0-23')
    unknown = at_database("schedules", "create", "reprot", "0 5 * * *")
    assert 'did you mean "report"?' in unknown.err
    missing = ids.new_schedule_id()
    assert f"there is no schedule {missing}" in at_database("schedules", "show", missing).err
    assert "nothing to change" in at_database("schedules", "update", missing).err
    assert "is no date" in at_database("schedules", "preview", "* * * * *", "--after", "soon").err
