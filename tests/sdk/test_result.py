"""A result says how a run ended, and explains itself when it is mistaken for the output."""

from __future__ import annotations

import copy
import pickle

import pytest

from detent import Err, Ok, Result, ResultMisuseError, RunError, SubtaskUnwrapError
from detent.protocol.ids import RunId

ERROR = RunError(name="ValueError", message="boom")
GOOD: Result[int] = Ok(5, id=RunId("run_1"), task_id="charge")
BAD: Result[int] = Err(ERROR, id=RunId("run_2"), task_id="charge")


def test_unwrap_gives_the_output_or_raises() -> None:
    assert GOOD.unwrap() == 5
    with pytest.raises(
        SubtaskUnwrapError, match='run run_2 of task "charge" did not succeed: ValueError: boom'
    ) as raised:
        BAD.unwrap()
    assert (raised.value.run_id, raised.value.task_id, raised.value.cause) == ("run_2", "charge", ERROR)


def test_a_default_stands_for_the_output_that_is_not_there() -> None:
    assert (GOOD.unwrap_or(7), BAD.unwrap_or(7)) == (5, 7)


def test_ok_tells_them_apart() -> None:
    assert GOOD.ok is True
    assert BAD.ok is False


def test_match_takes_them_apart() -> None:
    def describe(result: Result[int]) -> str:
        match result:
            case Ok(output):
                return f"got {output}"
            case Err(error):
                return f"failed with {error}"

    assert (describe(GOOD), describe(BAD)) == ("got 5", "failed with ValueError: boom")


def test_asking_the_wrong_half_is_explained() -> None:
    with pytest.raises(ResultMisuseError, match=r"\.output of a run that did not succeed \(ValueError: boom\)"):
        _ = BAD.output
    with pytest.raises(ResultMisuseError, match=r"check result\.ok first, or call result\.unwrap"):
        _ = GOOD.error


@pytest.mark.parametrize("result", [GOOD, BAD])
def test_using_a_result_as_the_output_is_explained(result: Result[int]) -> None:
    with pytest.raises(ResultMisuseError, match=r"\.order_id was asked of a Result"):
        result.order_id  # type: ignore[union-attr]
    with pytest.raises(ResultMisuseError, match=r"\['order_id'\] was asked of a Result"):
        result["order_id"]  # type: ignore[index]
    with pytest.raises(ResultMisuseError, match="an iteration was asked of a Result"):
        list(result)  # type: ignore[call-overload]
    assert not hasattr(result, "order_id")


@pytest.mark.parametrize("result", [GOOD, BAD])
def test_results_can_be_copied_pickled_compared_and_not_changed(result: Result[int]) -> None:
    assert copy.deepcopy(result) == result
    assert pickle.loads(pickle.dumps(result)) == result
    with pytest.raises(AttributeError):
        result.ok = True  # type: ignore[misc]
