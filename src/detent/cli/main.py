"""Finds the command that was asked for, and turns what it raises into a sentence and an exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

from detent.cli import failure

COMMANDS = (
    "init", "dev", "worker", "migrate", "trigger", "runs", "batches", "why",
    "queues", "limits", "schedules", "environments", "envvars", "replay", "tasks", "retention", "skills", "doctor",
)
"""In the order of the help; each has a module of its name with a Typer `app`."""
RUNNER = "runner"
"""Not for people: what a supervisor starts. It goes past Typer, for each of its milliseconds is waited for."""
DEBUG = "--debug"
INTERRUPTED = 130


def run() -> None:
    """Be the `detent` command."""
    arguments = sys.argv[1:]
    if arguments[:1] == [RUNNER]:
        from detent.cli import runner

        sys.exit(runner.main())
    sys.exit(main(arguments))


def main(arguments: Sequence[str]) -> int:
    """Carry out a command line; return its exit code."""
    given = [argument for argument in arguments if argument != DEBUG]
    is_debugging = len(given) < len(arguments)
    try:
        return _carry_out(given)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        from detent.cli import printing

        printing.mute()
        return failure.FAILED
    except Exception as error:  # noqa: BLE001 - the process's boundary: whatever it was, the user gets a sentence
        if is_debugging:
            traceback.print_exc()
        failure.say(error)
        return failure.exit_code(error)


def _carry_out(arguments: Sequence[str]) -> int:
    from detent.cli import root

    try:
        root.app(_modules(arguments))(args=arguments, prog_name="detent")
    except SystemExit as end:
        sys.stdout.flush()
        return end.code if isinstance(end.code, int) else failure.FAILED
    return 0


def _modules(arguments: Sequence[str]) -> list[str]:
    """Return the names of the modules that must be loaded: one, unless no command was named."""
    name = next((argument for argument in arguments if not argument.startswith("-")), "")
    return [name] if name in COMMANDS else list(COMMANDS)
