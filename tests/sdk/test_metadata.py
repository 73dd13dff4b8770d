"""`metadata` and `tags`, as a run's code calls them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest
from pydantic import BaseModel

from detent import MetadataTooLargeError, OutsideRunError, SerializationError, TooManyTagsError, metadata, tags
from detent.protocol.metadata import MetadataTarget
from detent.sdk.metadata import encode
from tests.sdk.fake_run import FakeRun

UPDATES: dict[str, Callable[[], object]] = {
    "metadata.set": lambda: metadata.set("a", 1),
    "metadata.delete": lambda: metadata.delete("a"),
    "metadata.replace": lambda: metadata.replace({}),
    "metadata.append": lambda: metadata.append("a", 1),
    "metadata.remove": lambda: metadata.remove("a", 1),
    "metadata.increment": lambda: metadata.increment("a"),
    "metadata.decrement": lambda: metadata.decrement("a"),
    "metadata.parent.set": lambda: metadata.parent.set("a", 1),
    "metadata.root.increment": lambda: metadata.root.increment("a"),
}


class Place(BaseModel):
    city: str
    id: UUID


@pytest.mark.parametrize("call", UPDATES)
def test_an_update_outside_of_a_run_is_refused(call: str) -> None:
    with pytest.raises(OutsideRunError, match=f"{call} needs a run"):
        UPDATES[call]()


async def test_outside_of_a_run_there_is_nothing_to_read_or_store() -> None:
    assert metadata.get("a") is None
    assert metadata.current() is None
    for call in (metadata.flush, metadata.refresh):
        with pytest.raises(OutsideRunError):
            await call()
    with pytest.raises(OutsideRunError):
        await tags.add("a")


async def test_updates_are_chained_and_seen_at_once(run: FakeRun) -> None:
    metadata.set("a", {"b": 1}).increment("$.a.b", 2).decrement("n").append("l", "x").remove("l", "x").delete("none")

    assert metadata.current() == {"a": {"b": 3}, "n": -1, "l": []}
    assert metadata.get("$.a.b") == 3
    assert metadata.replace({"z": None}).current() == {"z": None}


async def test_parent_and_root_are_updated_in_their_own_name(run: FakeRun) -> None:
    metadata.parent.set("a", 1).increment("b")
    metadata.root.append("c", 1)

    assert metadata.current() == {}
    assert [operation.target for operation in run.document.operations] == [
        MetadataTarget.PARENT, MetadataTarget.PARENT, MetadataTarget.ROOT,
    ]  # fmt: skip


async def test_values_become_json_as_those_of_payloads_do(run: FakeRun) -> None:
    place = Place(city="Ghent", id=UUID(int=1))
    metadata.set("at", datetime(2026, 1, 31, tzinfo=UTC)).append("places", place).set("plain", {"place": place})

    plain = {"city": "Ghent", "id": "00000000-0000-0000-0000-000000000001"}
    assert metadata.current() == {"at": "2026-01-31T00:00:00Z", "places": [plain], "plain": {"place": plain}}
    assert metadata.remove("places", place).get("places") == []
    assert metadata.replace(place).current() == plain


def test_what_the_database_cannot_hold_is_refused() -> None:
    with pytest.raises(SerializationError, match="NUL"):
        encode({"a": "\0"}, what="metadata")
    with pytest.raises(SerializationError, match="surrogate"):
        encode("\ud800", what="metadata")
    with pytest.raises(MetadataTooLargeError, match="262,144"):
        encode("a" * 262_143, what="metadata")
    with pytest.raises(MetadataTooLargeError, match="262,144"):
        encode(Place(city="a" * 262_143, id=UUID(int=1)), what="metadata")
    assert encode("\\u0000", what="metadata") == '"\\\\u0000"'


async def test_a_document_that_is_no_object_is_refused(run: FakeRun) -> None:
    with pytest.raises(SerializationError, match="must be an object of texts to JSON values, not list"):
        metadata.replace([1])  # type: ignore[arg-type]


async def test_flush_and_refresh_reach_the_run(run: FakeRun) -> None:
    run.document.refreshed = {"by": "a child"}
    await metadata.flush()
    await metadata.refresh()

    assert (run.document.flushes, metadata.get("by")) == (1, "a child")


async def test_what_was_given_may_change_afterwards(run: FakeRun) -> None:
    given = ["a"]
    metadata.set("l", list(given)).set("m", {"l": given})
    given.append("b")

    assert metadata.current() == {"l": ["a"], "m": {"l": ["a"]}}


@pytest.mark.parametrize("value", [float("nan"), object(), "\0", "\ud800", {1: float("inf")}])
async def test_what_is_no_json_is_refused_at_the_call(run: FakeRun, value: object) -> None:
    with pytest.raises(SerializationError, match="metadata 'a'"):
        metadata.set("a", value)
    assert run.document.operations == []


async def test_what_makes_no_sense_is_refused_at_the_call(run: FakeRun) -> None:
    with pytest.raises(TypeError, match="by a number"):
        metadata.increment("a", "1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be text"):
        metadata.set(1, "a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty"):
        metadata.set("", 1)
    with pytest.raises(SerializationError, match="an object"):
        metadata.replace([])  # type: ignore[arg-type]


async def test_tags_are_cleaned_and_checked_before_they_are_added(run: FakeRun) -> None:
    await tags.add(["a", " ", "a", "b"])
    await tags.add(" ")
    with pytest.raises(ValueError, match="128"):
        await tags.add(["c", "x" * 129])
    with pytest.raises(TooManyTagsError):
        await tags.add([str(number) for number in range(11)])

    assert run.tags == ["a", "b"]
