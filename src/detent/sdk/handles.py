"""What a trigger returns: the run, or the batch of runs, that now exists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from detent.sdk.result import Result

if TYPE_CHECKING:
    from detent.protocol.ids import BatchId, RunId
    from detent.protocol.items import ItemIds
    from detent.sdk.triggering import Triggerable

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
    """A batch that was triggered. `is_cached`: its idempotency key gave a batch that was already there."""

    id: BatchId
    runs: Sequence[RunHandle[T_co]]
    """In the order of its items. A handle is made when it is asked for: a large batch keeps no list of them."""
    is_cached: bool = False

    @property
    def run_count(self) -> int:
        return len(self.runs)


class ItemHandles(Sequence[RunHandle[T_co]]):
    """The handles of the runs of a batch; `task_at` returns the task of an item."""

    __slots__ = ("_run_ids", "_task_at")

    def __init__(self, run_ids: ItemIds, task_at: Callable[[int], Triggerable[T_co]]) -> None:
        self._run_ids, self._task_at = run_ids, task_at

    def __len__(self) -> int:
        return len(self._run_ids)

    @overload
    def __getitem__(self, place: int) -> RunHandle[T_co]: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[RunHandle[T_co], ...]: ...
    def __getitem__(self, place: int | slice) -> RunHandle[T_co] | tuple[RunHandle[T_co], ...]:
        if isinstance(place, slice):
            return tuple(self[each] for each in range(*place.indices(len(self))))
        index = range(len(self))[place]
        task = self._task_at(index)
        return RunHandle(self._run_ids[index], task.id, index in self._run_ids.cached, decode=task.decode)

    def __repr__(self) -> str:
        return f"<handles of {len(self)} runs>"


@dataclass(frozen=True, slots=True, eq=False)
class BatchResult(Generic[T]):
    """How the runs of a batch ended; `runs` are in the order of its items, `batch.results` leaves out those that go on."""

    id: BatchId
    runs: tuple[Result[T], ...]
