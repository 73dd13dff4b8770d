from __future__ import annotations

import pytest

from detent.cli import run_watch
from detent.cli.calling import calling
from detent.protocol.ids import new_run_id
from tests.cli.conftest import Detent


def trigger(detent: Detent, *arguments: str) -> str:
    return str(detent("trigger", *arguments, "--json").json["id"])


def test_list_is_newest_first_and_filtered(at_database: Detent) -> None:
    first, second = trigger(at_database, "hello", "--tag", "a"), trigger(at_database, "other")
    listed = at_database("runs", "list", "--json").json
    assert [run["id"] for run in listed] == [second, first]
    for arguments in (
        ["--task", "hello"], ["--tag", "a"], ["--limit", "2", "--task", "hello"], ["--queue", "task/hello", "--since", "1h"],
    ):  # fmt: skip
        assert [run["id"] for run in at_database("runs", "list", *arguments, "--json").json] == [first]
    assert len(at_database("runs", "list", "--status", "pending_version", "--no-test", "--json").json) == 2
    for arguments in (["--version", "v1"], ["--machine", "micro"], ["--parent", first], ["--test"], ["--until", "1h"]):
        assert at_database("runs", "list", *arguments, "--json").json == []


def test_table_holds_whole_ids_whatever_its_width(at_database: Detent) -> None:
    run_id = trigger(at_database, "hello")
    header, line = at_database("runs", "list").out.splitlines()
    assert header.split() == ["RUN", "TASK", "STATUS", "ATTEMPT", "CREATED", "DURATION"]
    assert line.startswith(f"{run_id}  hello  PENDING_VERSION  0 ")


def test_empty_list_says_what_to_do(at_database: Detent) -> None:
    assert at_database("runs", "list").out == "no runs yet; start one with `detent trigger`\n"
    assert at_database("runs", "list", "--task", "x").out == "no runs match\n"


def test_unknown_status_names_the_known_ones(at_database: Detent) -> None:
    done = at_database("runs", "list", "--status", "complete")
    assert done.code == 1
    assert "COMPLETED" in done.err


def test_get_shows_the_run_and_why_it_does_not_run(at_database: Detent) -> None:
    run_id = trigger(at_database, "hello", "--payload", '{"name": "Ada"}', "--tag", "a")
    shown = at_database("runs", "get", run_id).out
    for part in (run_id, "PENDING_VERSION (no worker has registered task", '{"name": "Ada"}', "tags         a"):
        assert part in shown


def test_unknown_run_is_a_sentence(at_database: Detent) -> None:
    for command in ("get", "logs", "watch", "cancel", "replay"):
        done = at_database("runs", command, new_run_id())
        assert done.code == 1
        assert done.err.startswith("error: ")
        done = at_database("runs", command, "run_1")
        assert "is no run id" in done.err


def test_cancel_ends_runs_once(at_database: Detent) -> None:
    first, second = trigger(at_database, "hello"), trigger(at_database, "hello")
    assert at_database("runs", "cancel", first).out == f"{first} is cancelled\n"
    assert at_database("runs", "cancel", first, second, "--json").json == [
        {"id": first, "is_cancelled": False},
        {"id": second, "is_cancelled": True},
    ]
    assert at_database("runs", "get", first, "--json").json["status"] == "CANCELED"


def test_replay_starts_a_new_run_with_the_same_payload_or_another(at_database: Detent) -> None:
    run_id = trigger(at_database, "hello", "--payload", "1")
    same = at_database("runs", "replay", run_id, "--json").json["id"]
    other = at_database("runs", "replay", run_id, "--payload", "2", "--json").json["id"]
    runs = [at_database("runs", "get", replayed, "--json").json for replayed in (same, other)]
    assert [(run["payload"], run["replay_of"]) for run in runs] == [(1, run_id), (2, run_id)]


def test_a_replay_may_be_given_other_options(at_database: Detent) -> None:
    old = trigger(at_database, "hello", "--tag", "a", "--queue", "q")
    options = ["--new-tag", "b", "--new-machine", "micro", "--priority", "5", "--delay", "1h", "--max-attempts", "2"]
    new = at_database("runs", "replay", old, *options, "--json").json["id"]
    run = at_database("runs", "get", new, "--json").json
    assert (run["tags"], run["machine"], run["priority"], run["max_attempts"]) == (["b"], "micro", 5, 2)
    assert (run["queue"], run["status"]) == ("q", "DELAYED")


def test_logs_of_a_run_that_has_said_nothing_are_empty(at_database: Detent) -> None:
    run_id = trigger(at_database, "hello")
    assert at_database("runs", "logs", run_id).out == ""
    at_database("runs", "cancel", run_id)
    assert at_database("runs", "logs", "--follow", run_id).out == ""


def test_tasks_says_when_there_are_none(at_database: Detent) -> None:
    assert "no worker has registered a task" in at_database("tasks").out
    assert at_database("tasks", "--json").json == []


def test_watching_a_run_that_is_over_says_how_it_ended(at_database: Detent) -> None:
    run_id = trigger(at_database, "hello")
    at_database("runs", "cancel", run_id)
    done = at_database("runs", "watch", run_id)
    assert done.code == 1
    assert "CANCELED" in done.out
    assert f"run {run_id} is CANCELED" in done.err
    assert at_database("runs", "watch", run_id, "--json").json["status"] == "CANCELED"


async def test_watching_prints_a_line_for_each_change_until_the_end(
    at_database: Detent, dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = 0

    async def cancel_at_the_second_look(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            await caller.client.runs.cancel(handle.id)

    async with calling(dsn, "dev") as caller:
        handle = await caller.client.tasks.trigger("hello", metadata={"done": 1})
        code = await run_watch.watch(caller, handle.id, as_json=False, sleep=cancel_at_the_second_look)
    printed = capsys.readouterr().out.splitlines()
    assert (code, looks) == (1, 2)
    assert [line.split()[1] for line in printed] == ["PENDING_VERSION", "CANCELED"]
    assert all('{"done": 1}' in line for line in printed)
