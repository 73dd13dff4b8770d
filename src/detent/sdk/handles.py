"""What a trigger returns: the run, or the batch of runs, that now exists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from detent.sdk.result import Result

if TYPE_CHECKING:
    from detent.protocol.ids import BatchId, RunId

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunHandle(Generic[T_co]):
    """A run that was triggered. `is_cached`: an idempotency key gave a run that was already there.

    `runs.retrieve(handle)` and `runs.poll(handle)` give its output as the task's return type.
    """

    id: RunId
    task_id: str
    is_cached: bool = False
    decode: Callable[[str | None], T_co] = field(repr=False, compare=False, kw_only=True)
    """Makes the output of its JSON text."""


@dataclass(frozen=True, slots=True, eq=False)
class BatchHandle(Generic[T_co]):
    """A batch that was triggered; `runs` are in the order of its items."""

    id: BatchId
    runs: tuple[RunHandle[T_co], ...]


@dataclass(frozen=True, slots=True, eq=False)
class BatchResult(Generic[T]):
    """How the runs of a batch ended; `runs` are in the order of its items."""

    id: BatchId
    runs: tuple[Result[T], ...]
