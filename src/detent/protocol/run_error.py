"""What a run failed with, as it is stored and as callers see it.

The stored shapes (BUILT_IN_ERROR, INTERNAL_ERROR, STRING_ERROR) and the clipping are the reference's, so that its clients
can read our errors.
"""

from __future__ import annotations

from dataclasses import dataclass

from detent.protocol import codec

LONGEST_NAME = 1_024
LONGEST_MESSAGE = 1_000
LONGEST_LINE = 1_024
_FIRST_FRAMES, _LAST_FRAMES = 5, 45


class ErrorCode:
    """Codes of errors that detent itself reports; the reference's, where it has one."""

    TASK_INPUT = "TASK_INPUT_ERROR"
    TASK_OUTPUT = "TASK_OUTPUT_ERROR"
    CATCH_ERROR = "HANDLE_ERROR_ERROR"
    TASK_NOT_FOUND = "COULD_NOT_FIND_TASK"
    MACHINE_NOT_FOUND = "COULD_NOT_FIND_MACHINE"
    PROCESS_EXITED = "TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE"
    PROCESS_SEGFAULT = "TASK_PROCESS_SIGSEGV"
    OUT_OF_MEMORY = "TASK_PROCESS_OOM_KILLED"
    PROCESS_KILLED = "TASK_PROCESS_MAYBE_OOM_KILLED"
    WORKER_LOST = "TASK_RUN_CRASHED"
    MAX_DURATION = "MAX_DURATION_EXCEEDED"
    CANCELLED = "TASK_RUN_CANCELLED"
    EXPIRED = "TASK_RUN_EXPIRED"
    NON_DETERMINISM = "NON_DETERMINISM"
    BATCH_ABORTED = "BATCH_ABORTED"
    BATCH_ITEM = "BATCH_ITEM_COULD_NOT_TRIGGER"
    TOKEN_TIMED_OUT = "TOKEN_TIMED_OUT"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunError:
    """Why a run did not succeed.

    `name` is the exception's class name (or the code), `message` its text, `code` is empty for an ordinary exception and
    names the cause when detent ended the run itself, `traceback` is Python's own text, clipped.
    """

    name: str
    message: str
    code: str = ""
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.message}" if self.message else self.name


def from_exception(error: BaseException, *, code: str = "") -> RunError:
    return RunError(
        name=type(error).__name__[:LONGEST_NAME],
        message=clean(_text_of(error))[:LONGEST_MESSAGE],
        code=code,
        traceback=_traceback_text(error),
    )


def internal(code: str, message: str) -> RunError:
    return RunError(name=code, message=clean(message)[:LONGEST_MESSAGE], code=code)


def to_json(error: RunError) -> str:
    if error.code:
        stored = {"type": "INTERNAL_ERROR", "code": error.code, "name": error.name}
    else:
        stored = {"type": "BUILT_IN_ERROR", "name": error.name}
    return codec.encode(stored | {"message": error.message, "stackTrace": error.traceback}, what="the error")


def from_json(text: str) -> RunError:
    stored = codec.decode(text, what="the stored error")
    if not isinstance(stored, dict):
        return RunError(name="Error", message=str(stored))
    if stored.get("type") == "STRING_ERROR":
        return RunError(name="Error", message=str(stored.get("raw", "")))
    code = str(stored.get("code") or "")
    return RunError(
        name=str(stored.get("name") or code or "Error"),
        message=str(stored.get("message") or ""),
        code=code,
        traceback=str(stored.get("stackTrace") or ""),
    )


def clean(text: str) -> str:
    """Return *text* without what PostgreSQL or JSON refuses: NUL and lone surrogates."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - a user's exception that cannot say what it is has failed its run all the same
        return f"its message is not to be had: str() raised {type(failure).__name__}"


def _traceback_text(error: BaseException) -> str:
    import traceback

    try:
        lines = traceback.format_exception(error)
    except (RecursionError, ValueError):
        return ""
    clipped = lines if len(lines) <= _FIRST_FRAMES + _LAST_FRAMES else [*lines[:_FIRST_FRAMES], *lines[-_LAST_FRAMES:]]
    return "\n".join(line[:LONGEST_LINE] for line in clean("".join(clipped)).splitlines())
