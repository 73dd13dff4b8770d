"""How payloads and outputs become JSON and come back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, computed_field
from typing_extensions import TypedDict

from detent import JsonValue, PayloadTooLargeError, Retry, SerializationError, TaskPayloadParsedError, task
from detent.sdk import schema
from detent.sdk.definition import AnyTask
from detent.sdk.schema import PLAIN


class Colour(Enum):
    RED = "red"


class Order(BaseModel):
    id: str
    amount: int
    price: float | None = None


class Aliased(BaseModel, extra="forbid"):
    order_id: str = Field(alias="orderId")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def shout(self) -> str:
        return self.order_id.upper()


@dataclass
class Point:
    x: int
    at: datetime


class Row(TypedDict):
    n: int


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def echo(annotation: object) -> AnyTask:
    """A task whose payload and output have a type."""

    def echo(payload):  # type: ignore[no-untyped-def]
        return payload

    echo.__annotations__ = {"payload": annotation, "return": annotation}
    return task(echo)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Order, Order(id="o1", amount=5)),
        (Aliased, Aliased(orderId="o1")),
        (Point, Point(x=1, at=datetime(2030, 1, 1, tzinfo=UTC))),
        (Row, {"n": 1}),
        (list[Order], [Order(id="o1", amount=5)]),
        (Order | None, None),
        (Colour, Colour.RED),
        (UUID, UUID(int=5)),
        (Decimal, Decimal("1.10")),
        (tuple[int, str], (1, "a")),
        (set[int], {1, 2}),
        (str, "a\x00b"),
        (bytes, b"abc"),
        (Any, {"any": ["thing"]}),
        (object, 5),
    ],
    ids=str,
)
def test_typed_values_come_back_as_they_were(annotation: object, value: object) -> None:
    work = echo(annotation)

    assert work.decode_payload(work.encode_payload(value)) == value
    assert work.decode_output(work.encode_output(value)) == value


@pytest.mark.parametrize(
    ("annotation", "value", "why"),
    [
        (Order, {"id": "o1"}, "amount: Field required"),
        (Order, {"id": "o1", "amount": "many"}, "amount: Input should be a valid integer"),
        (Order, 5, "the value: Input should be a valid dictionary or instance of Order"),
        (Order, Order.model_construct(id="o1", amount="many"), "amount"),
        (Point, Point(x="one", at=datetime(2030, 1, 1, tzinfo=UTC)), "x"),  # type: ignore[arg-type]
        (int, "five", "Input should be a valid integer"),
        (Order, None, "Input should be"),
    ],
)
def test_payload_that_does_not_fit_is_refused_at_the_call(annotation: object, value: object, why: str) -> None:
    with pytest.raises(TaskPayloadParsedError, match='the payload of task "echo" does not fit its schema') as refused:
        echo(annotation).encode_payload(value)

    assert why in str(refused.value)


def test_each_field_that_does_not_fit_is_named() -> None:
    with pytest.raises(TaskPayloadParsedError) as refused:
        echo(list[int]).encode_payload(["one"] * 7)

    assert len(refused.value.details) == 7
    assert refused.value.details[6].startswith("6: Input should be a valid integer")
    assert refused.value.cause.endswith("; and 2 more")


def test_stored_payload_that_does_not_fit_fails_the_run() -> None:
    with pytest.raises(TaskPayloadParsedError):
        echo(Order).decode_payload('{"id":"o1"}')
    with pytest.raises(TaskPayloadParsedError):
        echo(Order).decode_payload(None)
    with pytest.raises(TaskPayloadParsedError):
        echo(Order).decode_payload("[" * 10_000 + "]" * 10_000)
    with pytest.raises(TaskPayloadParsedError):
        echo(object).decode_payload("{nonsense")


def test_output_that_does_not_fit_the_return_annotation_is_refused() -> None:
    with pytest.raises(SerializationError, match=r'the output of task "echo" .* it does not fit the return annotation'):
        echo(Order).encode_output({"id": "o1"})
    with pytest.raises(SerializationError, match="return annotation"):
        echo(int).encode_output(None)


@pytest.mark.parametrize("annotation", [JsonValue, dict[str, JsonValue], list[JsonValue] | None])
def test_any_json_value_may_be_annotated(annotation: object) -> None:
    assert echo(annotation).registration(Retry()).output_schema is not None
    assert echo(JsonValue).decode_payload('{"a": [1, null]}') == {"a": [1, None]}


def test_output_is_coerced_to_the_return_annotation() -> None:
    assert echo(Order).encode_output({"id": "o1", "amount": 5}) == '{"id":"o1","amount":5,"price":null}'


def test_none_has_no_text() -> None:
    assert echo(Order | None).encode_output(None) is None
    assert echo(Any).encode_output(None) is None
    assert echo(Order).decode_output(None) is None


BAD: list[tuple[object, object]] = [
    (object, math.nan),
    (object, {"a": [math.inf]}),
    (float, math.nan),
    (Order, Order(id="o1", amount=5, price=math.nan)),
    (list[Order], [Order(id="o1", amount=5, price=-math.inf)]),
    (object, {"model": Order(id="o1", amount=5, price=math.nan)}),
    (object, "\ud800"),
    (object, {"\udfff": 1}),
    (str, "a\ud800"),
    (Order, Order.model_construct(id="\ud800", amount=1)),
    (object, nested(10_000)),
    (list[Any], nested(10_000)),
    (object, object()),
    (object, {"a": print}),
]


@pytest.mark.parametrize(("annotation", "value"), BAD, ids=range(len(BAD)))
def test_what_json_cannot_hold_is_refused(annotation: object, value: object) -> None:
    work = echo(annotation)

    with pytest.raises((SerializationError, TaskPayloadParsedError)):
        work.encode_payload(value)
    with pytest.raises(SerializationError, match='the output of task "echo"'):
        work.encode_output(value)


@pytest.mark.parametrize(
    ("annotation", "value"), [(object, "x" * 20_000_000), (str, "x" * 20_000_000), (str, "ä" * 6_000_000)]
)
def test_more_than_ten_megabytes_are_refused_naming_both_sizes(annotation: object, value: object) -> None:
    with pytest.raises(PayloadTooLargeError, match="over the limit of 10,485,760"):
        echo(annotation).encode_payload(value)


def test_plain_json_takes_whatever_pydantic_can_turn_into_it() -> None:
    value = {
        "order": Order(id="o1", amount=5),
        "at": datetime(2030, 1, 1, tzinfo=UTC),
        "id": UUID(int=1),
        "colour": Colour.RED,
    }

    assert PLAIN.decode(PLAIN.encode(value, what="it")) == {
        "order": {"id": "o1", "amount": 5, "price": None},
        "at": "2030-01-01T00:00:00Z",
        "id": "00000000-0000-0000-0000-000000000001",
        "colour": "red",
    }


def test_text_that_only_looks_like_a_constant_is_kept() -> None:
    assert echo(str).encode_payload("NaN and Infinity") == '"NaN and Infinity"'
    assert echo(Order).encode_payload(Order(id="null", amount=1)) == '{"id":"null","amount":1,"price":null}'


def test_summary_of_many_errors_is_short() -> None:
    with pytest.raises(schema.MismatchError, match="and 15 more"):
        schema.of(list[int], what="numbers").decode(str(["x"] * 20).replace("'", '"'))
