from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from detent.cli import example, printing
from detent.cli.lines import JsonLines, Lines, run_line
from detent.protocol.execution import Isolation
from detent.protocol.registration import RegisteredTask
from detent.worker.telling import EventKind, WorkerEvent


def event(kind: EventKind, detail: str = "") -> WorkerEvent:
    return WorkerEvent(kind=kind, run_id="run_1", task_id="hello", attempt=2, seconds=1.5, detail=detail)


def test_line_of_a_run_has_its_id_task_state_attempt_and_time() -> None:
    assert run_line(event(EventKind.SUCCEEDED)).split("  ")[0] == "run_1"
    assert run_line(event(EventKind.SUCCEEDED)).split() == ["run_1", "hello", "completed", "attempt", "2", "1.5", "s"]


def test_line_of_a_failure_ends_with_the_first_line_of_the_error() -> None:
    assert run_line(event(EventKind.FAILED, "ValueError: no\nsecond line")).endswith("ValueError: no")


def test_what_the_worker_logs_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines():
        for _ in range(3):
            logging.getLogger("detent.worker").warning("runner %d died", 7)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("warning: runner 7 died")


def test_json_lines_are_objects_with_a_kind(capsys: pytest.CaptureFixture[str]) -> None:
    lines = JsonLines()
    lines.event(event(EventKind.SUCCEEDED))
    lines.ready(0.5, "PostgreSQL", ["hello"], "")
    lines.signal(1)
    printed = capsys.readouterr().out.splitlines()
    assert ['"kind": "succeeded"' in printed[0], '"kind": "ready"' in printed[1], '"kind": "stopping"' in printed[2]]
    assert all(line.startswith('{"at": ') for line in printed)


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        (None, []),
        ("{}", []),
        ('{"type": "integer"}', ["--payload", "1"]),
        ('{"$ref": "#/$defs/A", "$defs": {"A": {"type": "object"}}}', ["--payload", "'{}'"]),
        (
            '{"type": "object", "properties": {"a": {"type": "string"}, "b": {"default": 2}, "c": {"enum": ["x"]}},'
            ' "required": ["a", "c"]}',
            ["--payload", """'{"a": "text", "c": "x"}'"""],
        ),
        ('{"anyOf": [{"type": "null"}, {"type": "string"}]}', ["--payload", "null"]),
    ],
)
def test_call_to_try_has_a_payload_that_fits(schema: str | None, payload: Sequence[str]) -> None:
    task = RegisteredTask(
        task_id="hello",
        isolation=Isolation.ASYNC,
        file_path="hello.py",
        queue="task/hello",
        description="",
        version="1",
        payload_schema=schema,
        has_live_worker=True,
    )
    assert example.call(task) == " ".join(["detent", "trigger", "hello", *payload, "--wait"])


def test_schema_that_contains_itself_ends() -> None:
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}}}
    assert example.value(schema, schema) is None


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0123, "12 ms"), (3.21, "3.2 s"), (75, "1 m 15 s"), (7322, "2 h 2 m"), (None, "")]
)
def test_durations_are_shown_for_people(seconds: float | None, shown: str) -> None:
    assert printing.seconds(seconds) == shown
