"""What a run failed with: stored in the reference's shapes, clipped, and never a problem of its own."""

from __future__ import annotations

import json

import pytest

from detent.protocol import run_error
from detent.protocol.run_error import ErrorCode, RunError


class OddError(Exception):
    pass


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - it is what this returns
        return caught


def test_exception_becomes_its_name_message_and_traceback() -> None:
    error = run_error.from_exception(raised(OddError("boom")))

    assert (error.name, error.message, error.code) == ("OddError", "boom", "")
    assert "test_run_error.py" in error.traceback
    assert str(error) == "OddError: boom"


@pytest.mark.parametrize(
    "error",
    [
        RunError(name="ValueError", message="boom", traceback="Traceback"),
        RunError(name="MAX_DURATION_EXCEEDED", message="too long", code=ErrorCode.MAX_DURATION),
        RunError(name="TaskPayloadParsedError", message="", code=ErrorCode.TASK_INPUT),
    ],
)
def test_stored_error_comes_back(error: RunError) -> None:
    assert run_error.from_json(run_error.to_json(error)) == error


def test_stored_shapes_are_the_references() -> None:
    own = json.loads(run_error.to_json(RunError(name="ValueError", message="boom")))
    internal = json.loads(run_error.to_json(run_error.internal(ErrorCode.TASK_NOT_FOUND, "no such task")))

    assert own == {"type": "BUILT_IN_ERROR", "name": "ValueError", "message": "boom", "stackTrace": ""}
    assert (internal["type"], internal["code"]) == ("INTERNAL_ERROR", "COULD_NOT_FIND_TASK")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"type":"STRING_ERROR","raw":"stopped"}', RunError(name="Error", message="stopped")),
        ('{"type":"INTERNAL_ERROR","code":"X"}', RunError(name="X", message="", code="X")),
        ("{}", RunError(name="Error", message="")),
        ('"text"', RunError(name="Error", message="text")),
    ],
)
def test_errors_of_other_clients_are_read(text: str, error: RunError) -> None:
    assert run_error.from_json(text) == error


def test_message_and_traceback_are_clipped() -> None:
    def dig(depth: int) -> None:
        if depth == 0:
            raise OddError("x" * 5_000)
        dig(depth - 1)

    try:
        dig(300)
    except OddError as error:
        stored = run_error.from_exception(error)

    assert len(stored.message) == run_error.LONGEST_MESSAGE
    assert all(len(line) <= run_error.LONGEST_LINE for line in stored.traceback.splitlines())


def test_what_the_database_refuses_is_left_out() -> None:
    error = run_error.from_exception(raised(OddError("a\x00b\ud800c")))

    assert error.message == "ab?c"
    run_error.to_json(error).encode()


def test_error_that_cannot_say_what_it_is_still_fails_the_run() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    error = run_error.from_exception(raised(MuteError()))

    assert error.name == "MuteError"
