from __future__ import annotations

from tests.cli.conftest import Detent


def trigger(detent: Detent, *arguments: str) -> str:
    return str(detent("trigger", "hello", *arguments, "--json").json["id"])


def test_why_gives_the_sentence_the_code_and_the_facts(at_database: Detent) -> None:
    run_id = trigger(at_database)
    first, *facts = at_database("why", run_id).out.splitlines()
    assert first == 'no worker has registered task "hello"; start one that has it'
    assert [line.split() for line in facts] == [
        ["status", "PENDING_VERSION"],
        ["code", "TASK_NEVER_REGISTERED"],
        ["task", "hello"],
    ]
    told = at_database("why", run_id, "--json").json
    assert (told["id"], told["status"], told["waiting_reason"]["code"]) == (
        run_id,
        "PENDING_VERSION",
        "TASK_NEVER_REGISTERED",
    )


def test_run_that_has_ended_waits_for_nothing(at_database: Detent) -> None:
    run_id = trigger(at_database)
    at_database("runs", "cancel", run_id)
    assert at_database("why", run_id).out == f"{run_id} is CANCELED; it waits for nothing\n"
    assert at_database("why", run_id, "--json").json["waiting_reason"] is None


def test_delayed_run_says_when_it_starts_and_may_be_given_another_date(at_database: Detent) -> None:
    run_id = trigger(at_database, "--delay", "1h")
    assert at_database("why", run_id).out.startswith("delayed until ")
    before = at_database("runs", "get", run_id, "--json").json["due_at"]
    assert at_database("runs", "reschedule", run_id, "30m").out == f"{run_id} starts in 29 m 59 s\n"
    assert at_database("runs", "reschedule", run_id, "20m", "--json").json["due_at"] < before


def test_run_that_is_not_delayed_cannot_be_given_another_date(at_database: Detent) -> None:
    done = at_database("runs", "reschedule", trigger(at_database), "1h")
    assert done.code == 1
    assert "only a delayed run has a date to move" in done.err
