"""Many runs by one command, with no worker running."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Detent
from tests.cli.test_runs import trigger


def test_runs_of_a_filter_are_cancelled(at_database: Detent) -> None:
    doomed = [trigger(at_database, "hello", "--tag", "a") for _ in range(3)]
    other = trigger(at_database, "hello")
    done = at_database("runs", "cancel", "--filter", "--tag", "a", "--since", "1h")
    assert done.out.endswith(": 3 of 3 runs cancelled\n")
    assert done.err == ""
    listed = at_database("runs", "list", "--status", "canceled", "--json").json
    assert {run["id"] for run in listed} == set(doomed)
    assert at_database("runs", "get", other, "--json").json["status"] == "PENDING_VERSION"


def test_runs_of_a_filter_are_replayed(at_database: Detent) -> None:
    old = trigger(at_database, "hello", "--payload", "1")
    at_database("runs", "cancel", old)
    record = at_database("runs", "replay", "--filter", "--status", "canceled", "--task", "hello", "--json").json
    assert (record["kind"], record["status"], record["success"]) == ("REPLAY", "COMPLETED", 1)
    (replayed, _) = at_database("runs", "list", "--json").json
    assert (replayed["replay_of"], replayed["payload"]) == (old, 1)


def test_until_leaves_young_runs_alone(at_database: Detent) -> None:
    trigger(at_database, "hello")
    for until in ("1h", "2026-01-01", "2026-01-01T12:00"):
        done = at_database("runs", "cancel", "--filter", "--until", until)
        assert done.out.endswith(": 0 of 0 runs cancelled\n")


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["cancel"], "name runs by their ids, or select them with --filter"),
        (["cancel", "run_1", "--filter", "--task", "a"], "one of the two"),
        (["cancel", "--task", "a"], "add --filter"),
        (["cancel", "--filter"], "--filter alone selects every run; add --status"),
        (["cancel", "--filter", "--since", "soon"], "--since 'soon' is neither a date nor a duration"),
        (["replay"], "name runs by their ids"),
        (["replay", "--filter", "--task", "a", "--wait"], "leave them out, or name the run"),
        (["replay", "--filter", "--task", "a", "--delay", "1h"], "leave them out, or name the run"),
    ],
)
def test_what_was_not_meant_is_refused(at_database: Detent, arguments: list[str], remedy: str) -> None:
    done = at_database("runs", *arguments)
    assert done.code == 2
    assert remedy in done.err
