"""The runs of a batch, in the order of its items: known by rule, so that a large batch needs no list of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import overload

from detent.protocol.ids import BatchId, RunId, item_run_id


class ItemIds(Sequence[RunId]):
    """The ids of the runs of a batch's items, made when they are asked for.

    `spans` are the indexes that were given, in order; `cached` the items that an older run stands for.

    >>> from detent.protocol.ids import new_batch_id
    >>> len(ItemIds(new_batch_id(), [range(0, 3), range(7, 9)]))
    5
    """

    __slots__ = ("_batch_id", "_ends", "_spans", "cached")

    def __init__(self, batch_id: BatchId, spans: Sequence[range], cached: Mapping[int, RunId] | None = None) -> None:
        self._batch_id, self._spans = batch_id, spans
        self._ends = list(accumulate(map(len, spans)))
        self.cached = cached or {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, place: int) -> RunId: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[RunId, ...]: ...
    def __getitem__(self, place: int | slice) -> RunId | tuple[RunId, ...]:
        if isinstance(place, slice):
            return tuple(self[each] for each in range(*place.indices(len(self))))
        index = self._index_at(range(len(self))[place])
        return self.cached.get(index) or item_run_id(self._batch_id, index)

    def __repr__(self) -> str:
        return f"<the {len(self)} runs of {self._batch_id}>"

    def _index_at(self, place: int) -> int:
        span = bisect_right(self._ends, place)
        return self._spans[span][place - (self._ends[span - 1] if span else 0)]
