"""How a child run ended, or what a token came to, for the run that waited: `Ok` with the output, or `Err` with the error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, NoReturn, TypeAlias, TypeVar

from detent.errors import ResultMisuseError, SubtaskUnwrapError, TokenFailedError, WaitTimeoutError
from detent.protocol.run_error import ErrorCode, internal
from detent.protocol.status import RunStatus

if TYPE_CHECKING:
    from detent.protocol.ids import RunId, WaitpointId
    from detent.protocol.run_error import RunError
    from detent.protocol.runs import RunOutcome

T = TypeVar("T")


class _Misuse:
    """Explains itself when a result is used as if it were the output."""

    __slots__ = ()

    if not TYPE_CHECKING:  # type checkers shall refuse these, not learn that everything is there

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("__"):
                raise AttributeError(name)
            # Also where a property below raised: Python asks here once more when that was an AttributeError.
            raise ResultMisuseError(self._other_half if name in {"error", "output"} else f".{name}")

        def __getitem__(self, key: object) -> NoReturn:
            raise ResultMisuseError(f"[{key!r}]")

        def __iter__(self) -> NoReturn:
            raise ResultMisuseError("an iteration")


@dataclass(frozen=True, slots=True)
class Ok(_Misuse, Generic[T]):
    """The run completed. `output` is what it returned. Of a token: what it was completed with; then `task_id` is empty.

    >>> Ok(5, id=RunId("run_1"), task_id="charge").unwrap()
    5
    """

    output: T
    id: RunId | WaitpointId = field(kw_only=True)
    task_id: str = field(default="", kw_only=True)
    ok: Literal[True] = field(default=True, init=False, repr=False)

    @property
    def error(self) -> NoReturn:
        raise ResultMisuseError(self._other_half)

    @property
    def _other_half(self) -> str:
        return f".error of a {_noun(self.task_id)} that succeeded"

    def unwrap(self) -> T:
        """Return the output."""
        return self.output

    def unwrap_or(self, default: object) -> T:
        """Return the output; `Err` returns *default*."""
        return self.output


@dataclass(frozen=True, slots=True)
class Err(_Misuse):
    """The run did not complete: it failed, crashed, timed out, expired or was cancelled. `error` says why.

    Of a token: nobody completed it in time; then `task_id` is empty.
    """

    error: RunError
    id: RunId | WaitpointId = field(kw_only=True)
    task_id: str = field(default="", kw_only=True)
    ok: Literal[False] = field(default=False, init=False, repr=False)

    @property
    def output(self) -> NoReturn:
        raise ResultMisuseError(self._other_half)

    @property
    def _other_half(self) -> str:
        return f".output of a {_noun(self.task_id)} that did not succeed ({self.error})"

    def unwrap(self) -> NoReturn:
        """Raise `SubtaskUnwrapError` with the run's id, its task's id and the error as `cause`; of a token `WaitTimeoutError`."""
        if self.task_id:
            raise SubtaskUnwrapError(self.id, self.task_id, self.error)
        if self.error.code == ErrorCode.TOKEN_TIMED_OUT:
            raise WaitTimeoutError(self.id, self.error.message)
        raise TokenFailedError(self.id, self.error)

    def unwrap_or(self, default: T) -> T:
        """Return *default*; `Ok` returns its output.

        Example::

            rates = (await fetch_rates.trigger_and_wait("EUR")).unwrap_or({})
        """
        return default


def _noun(task_id: str) -> str:
    return "run" if task_id else "token"


Result: TypeAlias = Ok[T] | Err
"""Check `result.ok` (it narrows in type checkers), `match` on `Ok(output)` and `Err(error)`, or call `unwrap()`."""


def of_outcome(outcome: RunOutcome, decode: Callable[[str | None], T]) -> Result[T]:
    """Return how a run ended; *decode* makes its output."""
    if outcome.status is RunStatus.COMPLETED:
        return Ok(decode(outcome.output), id=outcome.run_id, task_id=outcome.task_id)
    error = outcome.error or internal(outcome.status.value, f"the run ended as {outcome.status.value}")
    return Err(error, id=outcome.run_id, task_id=outcome.task_id)
