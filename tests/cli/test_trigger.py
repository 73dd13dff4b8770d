from __future__ import annotations

import pytest

from detent.protocol.backend import WorkerBackend
from detent.protocol.execution import Isolation
from detent.protocol.registration import TaskRegistration, WorkerRegistration
from tests.cli.conftest import Detent
from tests.pooler import direct

VERSION = "v1"
SCHEMA = '{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}'


@pytest.fixture
async def registered(dsn: str) -> None:
    """A worker has once registered the task "hello"."""
    await register(dsn, "hello")


async def register(dsn: str, task_id: str) -> None:
    from detent.engine.backend import connect

    backend: WorkerBackend = connect(dsn, listen_url=direct(dsn))
    task = TaskRegistration(
        task_id=task_id,
        isolation=Isolation.ASYNC,
        file_path="tasks/hello.py",
        queue=f"task/{task_id}",
        retry='{"max_attempts": 3, "factor": 2, "min_timeout": 1, "max_timeout": 10, "randomize": true}',
        payload_schema=SCHEMA,
    )
    await backend.register_worker(WorkerRegistration(tasks=(task,), version=VERSION))
    await backend.close()


def test_trigger_prints_the_run(at_database: Detent) -> None:
    done = at_database("trigger", "hello", "--payload", '{"name": "Ada"}')
    assert done.code == 0
    run_id = done.out.split()[0]
    assert at_database("runs", "get", run_id, "--json").json["payload"] == {"name": "Ada"}


def test_json_of_a_trigger_is_its_handle(at_database: Detent) -> None:
    handle = at_database("trigger", "hello", "--json").json
    assert handle == {"id": handle["id"], "task_id": "hello", "is_cached": False}


def test_options_reach_the_run(at_database: Detent) -> None:
    options = ["--delay", "1h", "--tag", "a", "--tag", "b", "--machine", "micro"]
    handle = at_database("trigger", "hello", *options, "--json").json
    run = at_database("runs", "get", handle["id"], "--json").json
    assert (run["status"], run["tags"], run["machine"]) == ("DELAYED", ["a", "b"], "micro")


def test_flow_control_reaches_the_run_and_is_shown(registered: None, at_database: Detent) -> None:
    options = ["--ttl", "10m", "--queue", "emails", "--concurrency-key", "user 7", "--priority", "5", "--version", VERSION]
    run_id = at_database("trigger", "hello", "--payload", '{"name": "Ada"}', *options, "--json").json["id"]
    run = at_database("runs", "get", run_id, "--json").json
    assert (run["ttl"], run["queue"], run["concurrency_key"], run["priority"]) == (600.0, "emails", "user 7", 5.0)
    assert run["version"] == VERSION
    shown = at_database("runs", "get", run_id).out
    for part in ("queue        emails", "key          user 7", "priority     5"):
        assert part in shown


def test_same_idempotency_key_gives_the_same_run(at_database: Detent) -> None:
    first, second = (at_database("trigger", "hello", "--idempotency-key", "k", "--json").json for _ in range(2))
    assert first["id"] == second["id"]
    assert second["is_cached"]


def test_unregistered_task_is_warned_about(at_database: Detent) -> None:
    done = at_database("trigger", "hello")
    assert done.code == 0
    assert done.err == 'warning: no worker has registered task "hello"; the run waits until one does\n'


def test_warning_names_the_nearest_task(registered: None, at_database: Detent) -> None:
    assert '(did you mean "hello"?)' in at_database("trigger", "helo").err


def test_task_without_a_live_worker_is_warned_about(registered: None, at_database: Detent) -> None:
    done = at_database("trigger", "hello", "--payload", '{"name": "Ada"}')
    assert done.err == 'warning: no live worker has task "hello"; the run waits until one starts: `detent dev`\n'


def test_payload_that_does_not_fit_is_refused_with_its_field(registered: None, at_database: Detent) -> None:
    done = at_database("trigger", "hello", "--payload", '{"name": 3}')
    assert done.code == 1
    assert "name: 3 is not of type" in done.err
    assert at_database("runs", "list", "--json").json == []


@pytest.mark.parametrize("payload", ["{name: Ada}", ""])
def test_payload_that_is_no_json_is_a_wrong_call(at_database: Detent, payload: str) -> None:
    done = at_database("trigger", "hello", "--payload", payload)
    assert done.code == 2
    assert done.err.startswith("error: --payload: ")


def test_bad_delay_is_a_sentence(at_database: Detent) -> None:
    done = at_database("trigger", "hello", "--delay", "soon")
    assert done.code == 1
    assert "'soon' is no duration" in done.err


def test_environments_do_not_see_each_other(at_database: Detent) -> None:
    at_database("trigger", "hello", "--env", "staging")
    assert at_database("runs", "list", "--json").json == []
    assert len(at_database("runs", "list", "--env", "staging", "--json").json) == 1
