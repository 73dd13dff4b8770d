"""Every error derives from `DetentError`, is drawn in the tree, and survives being passed on."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from detent import errors
from detent.errors import (
    ApiError,
    BatchTriggerError,
    DatabaseUnreachableError,
    DetentError,
    DuplicateTaskIdError,
    MetadataTooLargeError,
    NonDeterminismError,
    NotFoundError,
    PayloadTooLargeError,
    ResultMisuseError,
    RunCancelledError,
    SerializationError,
    SubtaskUnwrapError,
    TaskPayloadParsedError,
    TooManyTagsError,
)

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]

MADE: list[DetentError] = [
    DuplicateTaskIdError("charge", "a.py:1", "b.py:2"),
    SerializationError("the payload", "it is nested too deeply"),
    PayloadTooLargeError("the payload", 20_000_000, 10_485_760),
    TaskPayloadParsedError("charge", "amount: Field required"),
    SubtaskUnwrapError("run_1", "charge", "boom"),
    RunCancelledError("run_1", "by user"),
    NonDeterminismError("run_1", "main/3", "a time wait", 'a child "charge"'),
    TooManyTagsError(11, 10),
    MetadataTooLargeError(300_000, 262_144),
    ResultMisuseError(".foo"),
    BatchTriggerError("items", "batch_1", 500, "the file ended", is_rate_limited=True, retry_after=2.5),
    NotFoundError("there is no run run_1", code="run_not_found", details=["look again"]),
    DatabaseUnreachableError("localhost", "refused"),
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_derives_from_the_root(kind: type[Exception]) -> None:
    assert issubclass(kind, DetentError)


def test_tree_in_the_docstring_is_the_tree_of_the_code() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│ ├└─]*)(\w+Error)", line)
        if found:
            depth = len(found.group(1)) // 4
            above[depth:] = [found.group(2)]
            drawn[found.group(2)] = above[depth - 1] if depth else "Exception"

    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in CLASSES}


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_message_is_a_sentence_with_its_facts_as_attributes(error: DetentError) -> None:
    parameters = [
        name for name in inspect.signature(type(error).__init__).parameters if name not in {"self", "message"}
    ]

    assert all(hasattr(error, name) for name in parameters)
    assert str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_error_passes_from_process_to_process(error: DetentError) -> None:
    copied = pickle.loads(pickle.dumps(error))

    assert (type(copied), str(copied), vars(copied)) == (type(error), str(error), vars(error))


def test_value_errors_can_be_caught_as_such() -> None:
    for kind in (SerializationError, PayloadTooLargeError, TooManyTagsError, MetadataTooLargeError):
        assert issubclass(kind, ValueError)
    assert issubclass(ResultMisuseError, AttributeError)
    assert issubclass(ResultMisuseError, TypeError)


@pytest.mark.parametrize(
    "kind", [kind for kind in CLASSES if issubclass(kind, ApiError)], ids=lambda kind: kind.__name__
)
def test_refusals_have_a_status(kind: type[ApiError]) -> None:
    assert 400 <= kind.status < 600
