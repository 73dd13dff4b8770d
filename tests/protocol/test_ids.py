"""Ids: typed, time-ordered, and the same in text and in the database."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent.protocol import ids
from detent.protocol.ids import BatchId


@given(st.uuids())
def test_text_and_uuid_are_the_same_id(value: UUID) -> None:
    text = ids.encode("run", value)

    assert ids.decode("run", text) == value
    assert ids.to_hex("run", text) == value.hex
    assert len(text) == 30


@given(st.uuids(), st.uuids())
def test_text_sorts_as_the_uuid(one: UUID, other: UUID) -> None:
    assert (ids.encode("run", one) < ids.encode("run", other)) == (one < other)


def test_ids_rise_whoever_makes_them() -> None:
    made: list[list[str]] = []

    def make() -> None:
        mine = [ids.new_run_id() for _ in range(2_000)]
        made.append(mine)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(mine == sorted(mine) for mine in made)
    assert len({one for mine in made for one in mine}) == 8_000


def test_new_ids_are_version_7_and_say_when_they_were_made() -> None:
    before = datetime.now(UTC)
    value = ids.new_uuid()

    assert (value.version, value.variant) == (7, "specified in RFC 4122")
    assert abs(ids.created_at(value) - before) < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("make", "prefix"),
    [
        (ids.new_run_id, "run_"), (ids.new_batch_id, "batch_"), (ids.new_waitpoint_id, "waitpoint_"),
        (ids.new_session_id, "session_"),
    ],
)  # fmt: skip
def test_prefix_says_what_it_is_of(make: object, prefix: str) -> None:
    assert callable(make)
    assert str(make()).startswith(prefix)


@pytest.mark.parametrize(
    "text",
    [
        "", "run_", "run", "batch_01h455vb4pex5vsknk084sn02q", "run_01h455vb4pex5vsknk084sn02", "01h455vb4pex5vsknk084sn02q",
        "run_01h455vb4pex5vsknk084sn02u", "run_01H455VB4PEX5VSKNK084SN02Q", "run_8zzzzzzzzzzzzzzzzzzzzzzzzz",
        "run_01h455vb4pex5vsknk084sn02q ", "run__1h455vb4pex5vsknk084sn02q",
    ],
)  # fmt: skip
def test_what_is_no_id_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match='is no run id; one looks like "run_01h455vb4pex5vsknk084sn02q"'):
        ids.decode("run", text)
    with pytest.raises(ValueError, match="is no run id"):
        ids.to_hex("run", text)


def test_items_of_a_batch_have_the_same_ids_at_every_try() -> None:
    batch_id = ids.new_batch_id()
    items = [ids.item_run_id(batch_id, index) for index in range(1_000)]

    assert items == [ids.item_run_id(batch_id, index) for index in range(1_000)]
    assert items == sorted(items)
    assert len(set(items)) == 1_000
    assert ids.decode("run", items[0]).version == 7
    assert ids.item_run_id(ids.new_batch_id(), 0) not in items
    with pytest.raises(ValueError, match="is no batch id"):
        ids.item_run_id(BatchId("batch_1"), 0)
