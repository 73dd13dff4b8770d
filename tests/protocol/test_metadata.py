"""What operations do to a document of metadata."""

from __future__ import annotations

import pytest

from detent.protocol import codec
from detent.protocol.codec import JsonValue
from detent.protocol.metadata import Document, MetadataKind, MetadataOperation, apply, find, to_path

SET, DELETE, APPEND = MetadataKind.SET, MetadataKind.DELETE, MetadataKind.APPEND
REMOVE, INCREMENT, REPLACE = MetadataKind.REMOVE, MetadataKind.INCREMENT, MetadataKind.REPLACE

CASES: list[tuple[Document, MetadataKind, str, JsonValue, Document]] = [
    ({}, SET, "a", 1, {"a": 1}),
    ({"a": 1}, SET, "a", None, {"a": None}),
    ({}, SET, "a.b", 1, {"a.b": 1}),
    ({"a": {"b": 1, "c": 2}}, SET, "$.a.b", [3], {"a": {"b": [3], "c": 2}}),
    ({"a": None}, SET, "$.a.b.c", 1, {"a": {"b": {"c": 1}}}),
    ({"a": [1, {"b": 2}]}, SET, "$.a.1.b", 3, {"a": [1, {"b": 3}]}),
    ({"a": [1]}, SET, "$.a.1", 2, {"a": [1, 2]}),
    ({"a": [1]}, SET, "$.a.2", 2, {"a": [1]}),
    ({"a": [1]}, SET, "$.a.-1", 2, {"a": [1]}),
    ({"a": [1]}, SET, "$.a.b", 2, {"a": [1]}),
    ({"a": "text"}, SET, "$.a.b", 2, {"a": "text"}),
    ({"a": 1, "b": 2}, DELETE, "a", None, {"b": 2}),
    ({"a": 1}, DELETE, "b", None, {"a": 1}),
    ({"a": {"b": 1}}, DELETE, "$.a.b", None, {"a": {}}),
    ({"a": [1, 2]}, DELETE, "$.a.0", None, {"a": [2]}),
    ({"a": [1, 2]}, DELETE, "$.a.7", None, {"a": [1, 2]}),
    ({"a": [1, 2]}, DELETE, "$.a.x", None, {"a": [1, 2]}),
    ({"a": "text"}, DELETE, "$.a.x", None, {"a": "text"}),
    ({}, APPEND, "a", 1, {"a": [1]}),
    ({"a": None}, APPEND, "a", 1, {"a": [1]}),
    ({"a": [1]}, APPEND, "a", [2], {"a": [1, [2]]}),
    ({"a": "old"}, APPEND, "a", "new", {"a": ["old", "new"]}),
    ({"a": [{"b": [1]}]}, APPEND, "$.a.0.b", 2, {"a": [{"b": [1, 2]}]}),
    ({"a": [1, 2, 1.0, True]}, REMOVE, "a", 1, {"a": [2, True]}),
    ({"a": [{"x": 1, "y": 2}]}, REMOVE, "a", {"y": 2, "x": 1}, {"a": []}),
    ({"a": 1}, REMOVE, "a", 1, {"a": 1}),
    ({}, REMOVE, "a", 1, {}),
    ({}, INCREMENT, "a", 2, {"a": 2}),
    ({"a": 1.5}, INCREMENT, "a", -1, {"a": 0.5}),
    ({"a": "text"}, INCREMENT, "a", 1, {"a": 1}),
    ({"a": True}, INCREMENT, "a", 1, {"a": 1}),
    ({"a": {"n": 1}}, INCREMENT, "$.a.n", 1, {"a": {"n": 2}}),
    ({"a": 1}, REPLACE, "", {"b": [2]}, {"b": [2]}),
]


def operation_of(kind: MetadataKind, key: str, value: JsonValue) -> MetadataOperation:
    return MetadataOperation(kind=kind, path=() if kind is REPLACE else to_path(key), value=value)


@pytest.mark.parametrize(("before", "kind", "key", "value", "after"), CASES)
def test_an_operation_changes_the_document(
    before: Document, kind: MetadataKind, key: str, value: JsonValue, after: Document
) -> None:
    kept = codec.encode(before)

    assert codec.encode(apply(before, operation_of(kind, key, value))) == codec.encode(after)
    assert codec.encode(before) == kept


def test_what_is_not_there_is_found_to_be_nothing() -> None:
    document: Document = {"a": [{"b": 1}]}

    assert find(document, to_path("$.a.0.b")) == 1
    assert [find(document, to_path(key)) for key in ("$.a.1", "$.a.x", "$.a.0.b.c", "b", "a.0")] == [None] * 5
