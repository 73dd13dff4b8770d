"""What a step raised, as text in the journal, and made again for a replay.

Its class is only looked up, never imported, and its `__init__` is not called: the text says what was raised, not what to do.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TypeGuard

from detent.errors import StepError
from detent.protocol import codec, run_error
from detent.protocol.codec import JsonValue

_LONGEST_TEXT = 10_000
"""Characters of an argument or attribute that is kept."""


def failure_to_text(error: BaseException) -> str:
    """Return what *error* is, as JSON: class, message, traceback, and those of its arguments and attributes that are plain."""
    described = run_error.from_exception(error)
    return codec.encode({
        "module": type(error).__module__,
        "qualname": type(error).__qualname__,
        "args": list(error.args) if all(map(_is_scalar, error.args)) else None,
        "attributes": {name: value for name, value in getattr(error, "__dict__", {}).items() if _is_scalar(value)},
        "message": described.message,
        "traceback": described.traceback,
    }, what="what the step raised")  # fmt: skip


def rebuild(text: str) -> Exception:
    """Return the exception that *text* tells of: of its own class where that is loaded, else a `StepError`."""
    told = codec.decode(text, what="the recorded failure of a step")
    told = told if isinstance(told, dict) else {}
    message = str(told.get("message") or "")
    error = _made(told, message) or StepError(str(told.get("qualname") or "Exception").rpartition(".")[2], message)
    error.add_note(
        f"recorded when the step was taken, and raised again by a replay; then it was\n{told.get('traceback')}"
    )
    return error


def _made(told: Mapping[str, JsonValue], message: str) -> Exception | None:
    kind = _loaded(str(told.get("module")), str(told.get("qualname")))
    if kind is None:
        return None
    args, attributes = told.get("args"), told.get("attributes")
    try:
        error = kind.__new__(kind, *(args if isinstance(args, list) else [message]))
        vars(error).update(attributes if isinstance(attributes, dict) else {})
        str(error)
    except Exception:  # noqa: BLE001 - a class that needs more than it was given may fail in any way; there is another for it
        return None
    return error if isinstance(error, kind) else None


def _loaded(module: str, qualname: str) -> type[Exception] | None:
    found: object = sys.modules.get(module)
    for name in qualname.split("."):
        # Not getattr: that of a module may import what it lacks.
        found = getattr(found, "__dict__", {}).get(name)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _is_scalar(value: object) -> TypeGuard[bool | int | float | str | None]:
    """Whether *value* comes back from JSON as it was."""
    if type(value) is str:
        return len(value) <= _LONGEST_TEXT and run_error.clean(value) == value
    if type(value) is float:
        return value - value == 0
    return value is None or type(value) in {bool, int}
