"""The ids of a batch's runs, without a list of them."""

from __future__ import annotations

import pytest

from detent.protocol.ids import item_run_id, new_batch_id, new_run_id
from detent.protocol.items import ItemIds

BATCH = new_batch_id()


def test_ids_follow_from_the_batch_and_the_index() -> None:
    ids = ItemIds(BATCH, [range(3)])
    assert list(ids) == [item_run_id(BATCH, index) for index in range(3)]
    assert (ids[-1], ids[1:]) == (ids[2], (ids[1], ids[2]))


def test_an_older_run_stands_at_its_index() -> None:
    older = new_run_id()
    assert list(ItemIds(BATCH, [range(2)], {1: older})) == [item_run_id(BATCH, 0), older]


def test_indexes_that_were_not_given_have_no_place() -> None:
    ids = ItemIds(BATCH, [range(1, 3), range(7, 8)])
    assert list(ids) == [item_run_id(BATCH, index) for index in (1, 2, 7)]


def test_a_place_beyond_the_last_is_an_index_error() -> None:
    for place in (2, -3):
        with pytest.raises(IndexError):
            ItemIds(BATCH, [range(2)])[place]
    assert list(ItemIds(BATCH, [])) == []
