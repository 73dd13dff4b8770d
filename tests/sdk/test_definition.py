"""What `@task` makes of a function, and what it refuses, at import."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, TypeAdapter

from detent import (
    BareTask,
    CancelSignal,
    Context,
    DefinitionError,
    DuplicateTaskIdError,
    Retry,
    Task,
    schema_task,
    task,
)
from detent.errors import TaskPayloadParsedError
from detent.protocol.execution import Isolation, OnLost
from detent.sdk.registry import registry
from tests.sdk.fake_run import context

if TYPE_CHECKING:
    from tests.sdk.nowhere import Unknown  # type: ignore[import-not-found]

Decorate = Callable[..., Any]


class Order(BaseModel):
    id: str
    amount: int


def test_bare_decorator_names_the_task_after_its_function() -> None:
    @task
    async def charge(order: Order) -> None: ...

    assert (charge.id, charge.isolation, charge.queue_name) == ("charge", Isolation.ASYNC, "task/charge")
    assert registry.get("charge") is charge


def test_options_are_kept_with_the_task() -> None:
    @task(id="charge-card", description="takes money", retry=5, queue="cards", max_duration="1m")
    def charge(order: Order) -> None: ...

    assert (charge.id, charge.description, charge.isolation) == ("charge-card", "takes money", Isolation.THREAD)
    assert (charge.retry, charge.queue_name, charge.max_duration) == (Retry(max_attempts=5), "cards", 60.0)


def test_description_defaults_to_the_first_line_of_the_docstring() -> None:
    @task
    async def charge(order: Order) -> None:
        """Take the money.

        All of it.
        """

    assert charge.description == "Take the money."


async def test_task_is_still_the_plain_function() -> None:
    @task
    async def charge(order: Order, ctx: Context) -> str:
        return f"{order.id} {ctx.attempt.number}"

    @task
    def double(number: int) -> int:
        return number * 2

    assert await charge(Order(id="o1", amount=5), context()) == "o1 2"
    assert double(4) == 8
    assert charge.__name__ == "charge"
    assert charge.__wrapped__(Order(id="o1", amount=5), context()).close() is None


def test_what_becomes_of_lost_runs_is_registered_with_the_task() -> None:
    @task(on_lost="fail")
    async def once(order: Order) -> None: ...

    @schema_task(schema=Order, on_lost="restart")
    async def again(order: Order) -> None: ...

    @task
    async def charge(order: Order) -> None: ...

    registered = [made.registration(Retry()).on_lost for made in (once, again, charge)]
    assert registered == [OnLost.FAIL, OnLost.RESTART, OnLost.RESTART]


@pytest.mark.parametrize("isolation", ["process", Isolation.PROCESS])
def test_process_isolation_is_registered(isolation: str) -> None:
    @task(isolation=isolation)
    async def charge(order: Order) -> None: ...

    assert charge.isolation is Isolation.PROCESS
    assert charge.is_async


def test_context_and_signal_are_filled_in_by_name_or_annotation() -> None:
    seen: list[object] = []

    @task
    def by_name(payload, signal, ctx) -> None:  # type: ignore[no-untyped-def]
        seen.extend([payload, ctx, signal])

    @task
    def by_annotation(payload: int, about: Context, *, stop: CancelSignal) -> None:
        seen.extend([payload, about, stop])

    about, signal = context(), CancelSignal()
    by_name.invoke(1, about, signal)
    by_annotation.invoke(1, about, signal)

    assert seen == [1, about, signal, 1, about, signal]
    assert by_name.takes_signal
    assert by_annotation.takes_signal


def test_payload_may_be_absent() -> None:
    @task
    def tick(ctx: Context) -> int:
        return ctx.attempt.number

    @task
    def nothing() -> int:
        return 5

    assert isinstance(tick, BareTask)
    assert tick.invoke(None, context(), CancelSignal()) == 2
    assert nothing.invoke(None, context(), CancelSignal()) == 5
    assert nothing.decode_payload(None) is None


def test_annotation_imported_for_type_checkers_only_is_resolved_when_it_is_needed() -> None:
    @task
    def charge(order: Unknown, ctx: Context) -> None: ...

    assert charge.takes_payload
    with pytest.raises(
        DefinitionError, match=r'annotation of the payload of task "charge" in .*test_definition.py:\d+ is no type'
    ):
        charge.decode_payload("1")


def test_annotations_of_a_nested_function_see_local_names() -> None:
    class Local(BaseModel):
        n: int

    @task
    def work(payload: Local) -> list[Local]:
        return [payload]

    assert work.decode_payload('{"n":1}') == Local(n=1)
    assert work.decode_output('[{"n":1}]') == [Local(n=1)]


def test_default_of_the_payload_is_used_when_none_is_given() -> None:
    @task
    def count(number: int = 7) -> int:
        return number

    assert count.decode_payload(None) == 7
    assert count.decode_payload("3") == 3


def test_default_of_the_payload_is_registered_with_its_schema() -> None:
    @task
    def place(order: Order = Order(id="o1", amount=5)) -> None: ...  # noqa: B008 - never changed

    assert place.payload_schema == {**Order.model_json_schema(), "default": {"id": "o1", "amount": 5}}
    assert json.loads(place.registration(Retry()).payload_schema or "") == place.payload_schema


def test_a_task_tells_its_schemas() -> None:
    @task
    async def charge(order: Order) -> list[Order]: ...

    @task
    async def free(anything): ...  # type: ignore[no-untyped-def]

    assert charge.payload_schema == Order.model_json_schema()
    assert charge.output_schema == TypeAdapter(list[Order]).json_schema()
    assert (free.payload_schema, free.output_schema) == (None, None)


# ---- refusals ----


def refusal(**options: object) -> str:
    with pytest.raises(DefinitionError) as refused:

        @task(**options)  # type: ignore[call-overload, untyped-decorator]
        async def charge(order: Order) -> None: ...

    return str(refused.value)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"max_duraton": 5}, "unknown option 'max_duraton'; did you mean \"max_duration\"?"),
        ({"max_duration": "soon"}, "max_duration='soon': 'soon' is no duration"),
        ({"max_duration": 0}, "max_duration must be longer than 0 s"),
        ({"max_duration": -1}, "cannot be negative"),
        ({"retry": 0}, "it must be 1 to 250"),
        ({"retry": "often"}, "retry='often' must be a Retry or a number of attempts"),
        ({"retry": True}, "must be a Retry or a number of attempts"),
        ({"id": ""}, "id='' must be printable text"),
        ({"id": "x" * 129}, "must be printable text of 1 to 128 characters"),
        ({"id": "a\nb"}, "must be printable text"),
        ({"queue": 5}, "queue: 5 is no queue: give a queue() or its name"),
        ({"isolation": "thread"}, "only \"process\" can be asked for"),
        ({"on_lost": "retry"}, 'on_lost=\'retry\' must be "restart"'),
        ({"on_lost": "retry"}, 'or "fail" (it ends CRASHED'),
        ({"on_lost": None}, "on_lost=None must be"),
        ({"ttl": "soon"}, "ttl='soon': 'soon' is no duration"),
        ({"machine": ""}, "machine: '' must be printable text"),
        ({"retry": Retry(oom_machine="large-1x")}, 'have a limit of memory; add isolation="process"'),
        (
            {"machine": "micro", "isolation": "process", "retry": Retry(oom_machine="micro")},
            'a run that ran out of memory on "micro" is not tried there again',
        ),
        ({"on_failure": "alert"}, "on_failure is made of a function, not of 'alert'"),
    ],
)  # fmt: skip
def test_bad_option_is_refused_with_the_place_and_the_fix(options: dict[str, object], why: str) -> None:
    message = refusal(**options)

    assert why in message
    assert "test_definition.py:" in message


def test_parameter_that_nobody_would_fill_in_is_refused() -> None:
    with pytest.raises(DefinitionError, match='nobody would fill in the parameter "extra"'):

        @task
        async def charge(order: Order, extra: int = 3) -> None: ...

    with pytest.raises(DefinitionError, match="nobody would fill in the parameter"):

        @task
        async def pay(*orders: Order) -> None: ...

    with pytest.raises(DefinitionError, match="nobody would fill in the parameter"):

        @task
        async def late(ctx: Context, order: Order) -> None: ...


def test_unserialisable_default_is_refused() -> None:
    with pytest.raises(DefinitionError, match="the default of the payload cannot be turned into JSON"):

        @task
        def charge(order: object = object()) -> None: ...


def test_generators_and_classes_are_no_tasks() -> None:
    with pytest.raises(DefinitionError, match="a generator cannot be a task"):

        @task
        async def numbers(count: int) -> AsyncIterator[int]:
            yield count

    with pytest.raises(DefinitionError, match="a task is made of a function"):
        task(Order)

    with pytest.raises(DefinitionError, match=r"options are given by name, as in @task\(id=...\)"):
        task("charge")  # type: ignore[call-overload]


def test_schema_for_a_function_without_payload_is_refused() -> None:
    with pytest.raises(DefinitionError, match="it has a schema but its function takes no payload"):

        @task(schema=Order)
        async def tick() -> None: ...


# ---- registry ----


def test_second_task_of_one_id_is_refused_naming_both_places() -> None:
    @task(id="charge")
    async def first(order: Order) -> None: ...

    with pytest.raises(DuplicateTaskIdError) as refused:

        @task(id="charge")
        async def second(order: Order) -> None: ...

    assert refused.value.first != refused.value.second
    assert str(refused.value).count("test_definition.py:") == 2
    assert registry.get("charge") is first


def test_module_loaded_again_replaces_its_tasks() -> None:
    code = "from detent import task\n{}@task\ndef charge(x: int) -> None: ...\n"
    first: dict[str, Any] = {"__name__": "shop"}
    again: dict[str, Any] = {"__name__": "shop"}
    exec(compile(code.format(""), "/shop.py", "exec"), first)
    exec(compile(code.format("\n\n"), "/shop.py", "exec"), again)

    assert registry.get("charge") is again["charge"]


def test_same_function_twice_in_one_module_is_refused() -> None:
    code = "from detent import task\n@task\ndef charge(x: int) -> None: ...\n@task\ndef charge(x: int) -> None: ...\n"

    with pytest.raises(DuplicateTaskIdError):
        exec(compile(code, "/shop.py", "exec"), {"__name__": "shop"})


# ---- what the engine is told ----


def test_registration_says_what_the_engine_must_know() -> None:
    @task(max_duration="2m")
    async def charge(order: Order) -> list[int]:
        return [order.amount]

    registration = charge.registration(Retry(max_attempts=9, min_timeout="500ms"))

    assert (registration.task_id, registration.queue, registration.max_duration) == ("charge", "task/charge", 120.0)
    assert registration.file_path == "tests/sdk/test_definition.py"
    assert json.loads(registration.retry) == {
        "max_attempts": 9, "factor": 2, "min_timeout": 0.5, "max_timeout": 10.0, "randomize": True,
    }  # fmt: skip
    assert json.loads(registration.payload_schema or "")["required"] == ["id", "amount"]
    assert json.loads(registration.output_schema or "")["items"] == {"type": "integer"}


def test_config_fills_in_what_a_task_does_not_say() -> None:
    @task(retry=2)
    async def charge(order) -> None: ...  # type: ignore[no-untyped-def]

    registration = charge.registration(Retry(max_attempts=9), 30.0)

    assert json.loads(registration.retry)["max_attempts"] == 2
    assert registration.max_duration == 30.0
    assert registration.payload_schema is None


def test_type_that_pydantic_does_not_know_is_refused_when_the_worker_starts() -> None:
    class Odd:
        pass

    @task
    async def charge(order: Odd) -> None: ...

    with pytest.raises(
        DefinitionError, match=r'the annotation of the payload of task "charge" in .* is no type that pydantic knows'
    ):
        charge.registration(Retry())


# ---- schema_task ----


def test_schema_may_be_a_model_an_adapter_or_a_parser() -> None:
    def parse(value: object) -> int:
        return int(str(value)) + 1

    @schema_task(schema=Order)
    async def by_model(order: Order) -> None: ...

    @schema_task(schema=TypeAdapter(list[int]))
    async def by_adapter(numbers: list[int]) -> None: ...

    @schema_task(schema=parse, id="parser")
    async def by_parser(number: int) -> None: ...

    assert by_model.decode_payload('{"id":"o1","amount":5}') == Order(id="o1", amount=5)
    assert by_adapter.decode_payload("[1,2]") == [1, 2]
    assert by_parser.decode_payload('"4"') == 5
    with pytest.raises(
        TaskPayloadParsedError, match='the payload of task "parser" does not fit its schema: ValueError'
    ):
        by_parser.decode_payload('"four"')
    assert isinstance(by_parser, Task)
