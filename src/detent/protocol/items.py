"""The runs of a batch, in the order of its items: known by rule, so that a large batch needs no list of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import overload

from detent.protocol.ids import BatchId, RunId, item_run_id


class ItemIds(Sequence[RunId]):
    """The ids of the runs of a batch's items, made when they are asked for.

    `spans` are the indexes that were given, in order; `cached` the items that an older run stands for.

    >>> from detent.protocol.ids import new_batch_id
    >>> len(ItemIds(new_batch_id(), [range(0, 3), range(7, 9)]))
    5
    """

    __slots__ = ("_batch_id", "_spans", "cached")

    def __init__(self, batch_id: BatchId, spans: Sequence[range], cached: Mapping[int, RunId] | None = None) -> None:
        self._batch_id, self._spans, self.cached = batch_id, spans, cached or {}

    def __len__(self) -> int:
        return sum(map(len, self._spans))

    def __iter__(self) -> Iterator[RunId]:
        return (self._id_at(index) for span in self._spans for index in span)

    @overload
    def __getitem__(self, place: int) -> RunId: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[RunId, ...]: ...
    def __getitem__(self, place: int | slice) -> RunId | tuple[RunId, ...]:
        if isinstance(place, slice):
            return tuple(self[each] for each in range(*place.indices(len(self))))
        place = range(len(self))[place]
        for span in self._spans:
            if place < len(span):
                return self._id_at(span[place])
            place -= len(span)
        raise IndexError(place)

    def __repr__(self) -> str:
        return f"<the {len(self)} runs of {self._batch_id}>"

    def _id_at(self, index: int) -> RunId:
        return self.cached.get(index) or item_run_id(self._batch_id, index)
