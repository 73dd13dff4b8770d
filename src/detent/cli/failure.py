"""How a command fails: a sentence on stderr, and 1 for what failed, 2 for what is wrong with the call or the database."""

from __future__ import annotations

import sys

from detent.errors import ApiConnectionError, ConfigError, DatabaseError, DetentError

FAILED = 1
UNUSABLE = 2

_COLOURS = {"error": "\033[1;31m", "warning": "\033[1;33m"}
_UNUSABLE_ERRORS = (DatabaseError, ConfigError, ApiConnectionError)


class UsageError(DetentError):
    """The command line asks for something that makes no sense."""


def exit_code(error: Exception) -> int:
    """Return the exit code that an error ends a command with.

    >>> exit_code(UsageError("--payload is no JSON"))
    2
    """
    return UNUSABLE if isinstance(error, (UsageError, *_UNUSABLE_ERRORS)) else FAILED


def say(error: Exception) -> None:
    """Print an error as a sentence."""
    if isinstance(error, DetentError | ValueError | TimeoutError) and str(error):
        complain("error", str(error))
    else:
        complain("error", f"{type(error).__name__}: {error}; run it again with --debug for the traceback")


def warn(sentence: str) -> None:
    complain("warning", sentence)


def complain(kind: str, sentence: str) -> None:
    sys.stdout.flush()
    label = f"{_COLOURS[kind]}{kind}:\033[0m" if sys.stderr.isatty() else f"{kind}:"
    print(label, sentence, file=sys.stderr)
