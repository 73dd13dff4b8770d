from __future__ import annotations

import subprocess
import sys

import pytest

from detent.cli import failure, main
from detent.errors import ApiConnectionError, DatabaseUnreachableError, NotFoundError
from tests.cli.conftest import Detent


def test_help_lists_every_command(detent: Detent) -> None:
    shown = detent("--help").out
    assert all(f"\n  {command} " in shown for command in main.COMMANDS)


def test_runner_is_not_in_the_help(detent: Detent) -> None:
    assert main.RUNNER not in detent("--help").out


@pytest.mark.parametrize(
    "command",
    [
        *main.COMMANDS,
        *("runs list", "runs get", "runs logs", "runs cancel", "runs replay", "runs reschedule"),
        *("queues list", "queues pause", "queues resume", "queues limit"),
        *("skills list", "skills show", "skills install"),
        *("limits list", "limits show", "limits set", "limits reset", "limits pause", "limits resume", "limits environment"),
    ],
)
def test_every_command_that_prints_data_can_print_json(detent: Detent, command: str) -> None:
    shown = detent(*command.split(), "--help").out
    assert "--json" in shown or "Commands:" in shown


@pytest.mark.parametrize("arguments", [["dvev"], ["trigger"], ["runs", "list", "--limit", "no"], ["tasks", "--unknown"]])
def test_bad_call_is_a_sentence_and_exit_code_2(detent: Detent, arguments: list[str]) -> None:
    done = detent(*arguments)
    assert done.code == 2
    assert "Error: " in done.err
    assert "Traceback" not in done.err


def test_error_is_a_sentence(detent: Detent) -> None:
    done = detent("tasks")
    assert done.code == 2
    assert done.err.startswith("error: there is no detent project in ")
    assert done.err.count("\n") == 1


def test_debug_prints_the_traceback_before_the_sentence(detent: Detent) -> None:
    done = detent("tasks", "--debug")
    assert done.err.startswith("Traceback")
    assert "\nerror: there is no detent project in " in done.err


def test_unexpected_error_names_itself_and_points_to_debug(capsys: pytest.CaptureFixture[str]) -> None:
    failure.say(KeyError("x"))
    assert capsys.readouterr().err == "error: KeyError: 'x'; run it again with --debug for the traceback\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DatabaseUnreachableError("here", "nobody answers"), 2),
        (ApiConnectionError("the database is out of reach"), 2),
        (failure.UsageError("no"), 2),
        (NotFoundError("no such run"), 1),
        (KeyError("x"), 1),
    ],
)
def test_exit_code_is_2_for_the_call_and_the_database_and_else_1(error: Exception, code: int) -> None:
    assert failure.exit_code(error) == code


def test_starting_loads_nothing_heavy() -> None:
    heavy = {"psycopg", "rich", "uvloop", "watchfiles", "detent.engine", "detent.worker"}
    program = (
        "import sys; from detent.cli.main import main\n"
        "for command in ('--version', 'dev --help', 'runs list --help'): main(command.split())\n"
        f"print(sorted({heavy} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_runner_started_by_hand_is_a_sentence() -> None:
    done = subprocess.run([sys.executable, "-m", "detent", main.RUNNER], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: `detent runner` is started by `detent worker` and `detent dev`, not by hand\n"


def test_reader_that_leaves_early_ends_a_command_quietly() -> None:
    command = f"{sys.executable} -m detent --help | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""
