"""Steps: how they are called, what they are known by, and what comes back."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self

import pytest
from pydantic import BaseModel

from detent import (
    AbortTaskRunError,
    BlockingCallError,
    DefinitionError,
    NotFoundError,
    Retry,
    RunCancelledError,
    SerializationError,
    StepError,
    step,
    task,
)
from detent.sdk import blocking, fingerprint, portal
from detent.sdk.failure import failure_to_text, rebuild
from detent.sdk.step import LONGEST_NAME
from tests.sdk.fake_run import FakeRun

AT_ONCE = Retry(max_attempts=3, min_timeout=0, max_timeout=0)


class Rate(BaseModel):
    currency: str
    value: float
    at: datetime = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass
class Point:
    x: int
    y: int = 0


class Counted:
    """A function that knows how often it was called, and with what; the first calls fail."""

    def __init__(self, *failures: BaseException, result: object = 1.5) -> None:
        self.failures, self.result = list(failures), result
        self.calls: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()

    async def fetch(self, *args: object) -> Any:
        return self.take(*args)

    def take(self, *args: object) -> Any:
        self.calls.append(args)
        self.threads.add(threading.get_ident())
        if self.failures:
            raise self.failures.pop(0)
        return self.result


async def in_thread(work: Callable[[], object]) -> object:
    """Call *work* as the body of a task written as plain `def`."""
    return await asyncio.to_thread(work)


# ---- taking a step ----


async def test_result_of_a_step_is_recorded_and_not_made_again(run: FakeRun) -> None:
    counted = Counted()

    first = await step("fetch-rate", counted.fetch, "EUR")
    run.begin_again()
    second = await step("fetch-rate", counted.fetch, "EUR")

    assert (first, second) == (1.5, 1.5)
    assert counted.calls == [("EUR",)]
    assert run.records == {("fetch-rate", 0): ("1.5", None)}


async def test_everything_after_the_function_goes_to_it(run: FakeRun) -> None:
    async def told(*args: object, **kwargs: object) -> object:
        return [args, kwargs]

    assert await step("told", told, 1, name="n", fn="f", retry=3) == [[1], {"name": "n", "fn": "f", "retry": 3}]


async def test_steps_of_one_name_are_told_apart(run: FakeRun) -> None:
    async def square(number: int) -> int:
        return number**2

    assert [await step("square", square, number) for number in range(3)] == [0, 1, 4]
    run.begin_again()
    assert [await step("square", square, number) for number in range(3)] == [0, 1, 4]


async def test_steps_are_coroutines(run: FakeRun) -> None:
    counted = Counted()

    async with asyncio.TaskGroup() as group:
        one = group.create_task(step("one", counted.fetch))
    two = await asyncio.gather(step("two", counted.fetch), asyncio.wait_for(step("three", counted.take), 5))

    assert [one.result(), *two] == [1.5] * 3


async def test_plain_function_leaves_the_loop_free(run: FakeRun) -> None:
    counted = Counted()

    assert await step("take", counted.take) == 1.5
    assert threading.get_ident() not in counted.threads


async def test_lambda_that_calls_an_async_function_is_awaited(run: FakeRun) -> None:
    counted = Counted()

    assert await step("lambda", lambda: counted.fetch(1)) == 1.5
    assert await step("partial", partial(counted.fetch, 1)) == 1.5
    assert counted.calls == [(1,), (1,)]


async def test_step_that_nobody_awaits_is_warned_of_by_its_name(run: FakeRun) -> None:
    with pytest.warns(RuntimeWarning, match="coroutine 'step \"fetch-rate\"' was never awaited"):
        step("fetch-rate", Counted().fetch)


async def test_step_that_is_cancelled_is_not_recorded(run: FakeRun) -> None:
    began = asyncio.Event()

    async def stay() -> None:
        began.set()
        await run.never.wait()

    taking = asyncio.create_task(step("stay", stay))
    await began.wait()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking

    assert run.records == {}


# ---- as a decorator ----


async def test_decorated_function_is_a_step(run: FakeRun) -> None:
    calls = []

    @step
    async def fetch_rate(currency: str) -> float:
        """Ask the bank."""
        calls.append(currency)
        return 1.5

    @step(name="fetch rates", retry=2)
    async def fetch_all() -> list[float]:
        return [1.5]

    assert await fetch_rate("EUR") == await fetch_rate(currency="USD") == 1.5
    assert await fetch_all() == [1.5]
    assert [name for name, _ in run.steps] == ["fetch_rate", "fetch_rate", "fetch rates"]
    assert (fetch_rate.__name__, fetch_rate.__doc__, repr(fetch_rate)) == (
        "fetch_rate", "Ask the bank.", '<step "fetch_rate">',
    )  # fmt: skip


async def test_decorated_plain_function_is_a_step_in_a_thread_of_the_run(run: FakeRun) -> None:
    @step
    def add(one: int, other: int) -> int:
        return one + other

    assert await in_thread(lambda: add(1, other=2)) == 3
    assert await add.async_(3, 4) == 7
    assert [name for name, _ in run.steps] == ["add", "add"]


async def test_decorated_plain_function_would_stop_the_loop(run: FakeRun) -> None:
    @step(name="add-up")
    def add(one: int, other: int) -> int:
        return one + other

    with pytest.raises(BlockingCallError, match=r"add\(\) is the blocking twin .*; await add\.async_\(…\) instead"):
        add(1, 2)
    assert run.steps == []


async def test_decorated_function_may_be_called_by_another_name(run: FakeRun) -> None:
    counted = Counted(ValueError("one"), ValueError("two"))

    @step(retry=AT_ONCE)
    async def fetch() -> float:
        return await counted.fetch()  # type: ignore[no-any-return]

    assert await step("another", fetch) == 1.5
    assert [name for name, _ in run.steps] == ["another"]
    assert len(counted.calls) == 3


async def test_method_is_a_step_of_its_instance(run: FakeRun) -> None:
    class Bank:
        def __init__(self, rate: float) -> None:
            self.rate = rate

        @step
        async def fetch(self, currency: str) -> float:
            return self.rate

        @step
        def take(self, currency: str) -> float:
            return self.rate

        @staticmethod
        @step
        async def name() -> str:
            return "bank"

    assert await Bank(1.5).fetch("EUR") == 1.5
    assert await Bank.fetch(Bank(2.5), "EUR") == 2.5
    assert await in_thread(partial(Bank(3.5).take, "EUR")) == 3.5
    assert await Bank.name() == "bank"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"name": ""}, "step '' in .*test_step.py:.*: a name has 1 to 200 characters"),
        ({"name": "x" * (LONGEST_NAME + 1)}, "a name has 1 to 200 characters"),
        ({"name": "a/b"}, 'a name is printable text without "/" and "#"'),
        ({"name": "a#1"}, "without"),
        ({"name": "a\x00"}, "printable"),
        ({"name": 5}, "give it a text as name="),
        ({"retry": 0}, r"Retry\(max_attempts=0\): it must be 1 to 250"),
        ({"retry": "often"}, "retry='often' must be a Retry or a number of attempts"),
        ({"retry": True}, "retry=True must be"),
        ({"retries": 3}, "unknown option 'retries'; did you mean \"retry\""),
    ],
)
def test_bad_option_is_refused_at_definition(options: Any, why: str) -> None:
    async def fetch() -> None: ...

    with pytest.raises(DefinitionError, match=why):
        step(**options)(fetch)


def test_what_cannot_be_a_step_is_refused_at_definition() -> None:
    async def stream() -> Any:
        yield 1

    async def fetch() -> None: ...

    def typed() -> "5 +": ...  # type: ignore[syntax] # noqa: F722

    with pytest.raises(DefinitionError, match="a generator cannot be a step; return a list"):
        step(stream)
    with pytest.raises(DefinitionError, match=r"a step is made of a function, not of <step \"fetch\">"):
        step(step(fetch))
    with pytest.raises(DefinitionError, match="not of <task"):
        step(task(fetch))
    with pytest.raises(DefinitionError, match="not of <class"):
        step(Point)
    with pytest.raises(DefinitionError, match=r"step 'typed' in .*: the return annotation .* is no type"):
        step(typed)


@pytest.mark.parametrize(
    ("given", "error", "why"),
    [
        (("a/b", len), ValueError, "step 'a/b': a name is printable text"),
        (("", len), ValueError, "step '': a name has 1 to 200"),
        ((len, "EUR"), TypeError, r'a step is called with its name first, as in step\("fetch-rate"'),
        (
            ("x",),
            TypeError,
            r'step "x" takes a function and its arguments, not None; to decorate, say @step\(name="x"\)',
        ),
        (("x", 5), TypeError, "not 5"),
    ],
)
async def test_bad_call_is_refused(run: FakeRun, given: Any, error: type[Exception], why: str) -> None:
    for call in (step, step.sync):
        with pytest.raises(error, match=why):
            call(*given)


async def test_call_in_place_of_the_function_is_refused(run: FakeRun) -> None:
    async def fetch(currency: str) -> None: ...

    with pytest.raises(TypeError, match=r'takes a function, not its call: step\("x", fetch, …\)'):
        step("x", fetch("EUR"))  # type: ignore[arg-type]


# ---- outside a run ----


async def test_outside_a_run_a_step_is_a_call_of_the_function() -> None:
    counted = Counted(ValueError("boom"), result=Point(1))

    @step(retry=3)
    async def fetch() -> Point:
        return await counted.fetch()  # type: ignore[no-any-return]

    @step
    def take() -> Point:
        return counted.take()  # type: ignore[no-any-return]

    with pytest.raises(ValueError, match="boom"):
        await fetch()
    assert await fetch() is counted.result
    assert take() is await take.async_() is counted.result
    assert await step("fetch", counted.fetch) is await step("take", counted.take) is counted.result
    assert step.sync("take", counted.take) is counted.result
    assert counted.threads == {threading.get_ident()}


def test_outside_a_run_the_twin_of_an_async_step_uses_the_background_loop() -> None:
    counted = Counted()

    @step
    async def fetch() -> Any:
        return await counted.fetch()

    try:
        assert fetch.sync() == step.sync("fetch", counted.fetch) == 1.5
        assert threading.get_ident() not in counted.threads
    finally:
        portal.close_portal()


async def test_twin_of_an_async_step_is_refused_on_the_loop() -> None:
    @step
    async def fetch() -> None: ...

    with pytest.raises(BlockingCallError, match=r"fetch\.sync is the blocking twin .*; await fetch\(…\) instead"):
        fetch.sync()
    with pytest.raises(BlockingCallError, match=r'step\.sync is the blocking twin .*; await step\("x", …\) instead'):
        step.sync("x", fetch)


# ---- in a def task ----


async def test_plain_function_of_a_blocking_step_stays_in_its_thread(run: FakeRun) -> None:
    counted = Counted(ValueError("once"))
    threads = []

    @step(retry=AT_ONCE)
    def take(number: int) -> Any:
        return counted.take(number)

    def body() -> object:
        threads.append(threading.get_ident())
        return [take(1), step.sync("take", counted.take, 2)]

    assert await in_thread(body) == [1.5, 1.5]
    assert counted.calls == [(1,), (1,), (2,)]
    assert list(counted.threads) == threads


async def test_async_function_of_a_blocking_step_is_executed_on_the_loop(run: FakeRun) -> None:
    counted = Counted()

    @step
    async def fetch() -> Any:
        return await counted.fetch()

    assert await in_thread(lambda: [fetch.sync(), step.sync("fetch", counted.fetch)]) == [1.5, 1.5]
    assert counted.threads == {threading.get_ident()}


async def test_blocking_step_raises_what_the_function_raises(run: FakeRun) -> None:
    error = ValueError("boom")

    with pytest.raises(ValueError, match="boom") as raised:
        await in_thread(lambda: step.sync("take", Counted(error).take))

    assert raised.value is error


async def test_blocking_step_lets_the_thread_exit(run: FakeRun) -> None:
    def leave() -> None:
        sys.exit(3)

    def body() -> object:
        try:
            step.sync("leave", leave)
        except SystemExit as error:
            return error.code
        return None

    assert await in_thread(body) == 3
    assert run.records == {}


async def test_blocking_step_of_a_cancelled_run_ends_after_its_function(run: FakeRun) -> None:
    began, may_end = threading.Event(), threading.Event()

    def stay() -> None:
        began.set()
        assert may_end.wait(10)

    taking = asyncio.create_task(in_thread(lambda: step.sync("stay", stay)))
    await asyncio.to_thread(began.wait, 10)
    blocking.interrupt(run.context.run.id)
    may_end.set()

    with pytest.raises(RunCancelledError):
        await taking
    assert run.records == {}


# ---- results ----


@pytest.mark.parametrize("is_again", [False, True], ids=["live", "replayed"])
async def test_result_comes_back_as_the_return_annotation_says(run: FakeRun, is_again: bool) -> None:
    async def rates() -> dict[str, Rate]:
        return {"EUR": Rate(currency="EUR", value=1)}

    def points() -> list[Point]:
        return [Point(1)]

    async def untyped():  # type: ignore[no-untyped-def]
        return Point(1), {"at": datetime(2030, 1, 1, tzinfo=UTC)}

    def later() -> Awaitable[Point]:
        return answer()

    async def answer() -> Point:
        return Point(2)

    async def take() -> list[object]:
        return [
            await step("rates", rates),
            await step("points", points),
            await step("untyped", untyped),
            await step("later", later),
            await step("class", Point, 5),
            await step("parse", Rate.model_validate, {"currency": "EUR", "value": 2}),
        ]

    taken = await take()
    if is_again:
        run.begin_again()
        taken = await take()

    assert taken == [
        {"EUR": Rate(currency="EUR", value=1)},
        [Point(1)],
        [{"x": 1, "y": 0}, {"at": "2030-01-01T00:00:00Z"}],
        Point(2),
        Point(5),
        Rate(currency="EUR", value=2),
    ]


async def test_no_value_is_not_a_null(run: FakeRun) -> None:
    async def nothing() -> None: ...

    async def maybe() -> Point | None:
        return None

    assert await step("nothing", nothing) is None
    assert await step("maybe", maybe) is None
    assert run.records == {("nothing", 0): (None, None), ("maybe", 0): ("null", None)}
    run.begin_again()
    assert await step("nothing", nothing) is None
    assert await step("maybe", maybe) is None


class Opaque:
    @classmethod
    def made(cls) -> Self:
        return cls()


@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (object, 'the result of step "x" cannot be turned into JSON: Unable to serialize'),
        (lambda: float("nan"), 'the result of step "x" cannot be turned into JSON'),
    ],
)
async def test_result_that_cannot_be_json_is_refused_and_not_tried_again(
    run: FakeRun, fn: Callable[[], object], why: str
) -> None:
    calls = []

    @step(name="x", retry=AT_ONCE)
    def counted() -> Any:
        calls.append(1)
        return fn()

    with pytest.raises(SerializationError, match=why):
        await counted.async_()

    assert calls == [1]
    assert run.records["x", 0][0] is None


async def test_result_that_does_not_fit_its_annotation_is_refused(run: FakeRun) -> None:
    async def fetch() -> int:
        return "many"  # type: ignore[return-value]

    with pytest.raises(SerializationError, match=r'the result of step "x" .* it does not fit the return annotation'):
        await step("x", fetch)


async def test_record_that_does_not_fit_the_annotation_any_more_is_refused(run: FakeRun) -> None:
    run.records["x", 0] = '"many"', None

    async def fetch() -> int:
        return 5

    with pytest.raises(
        SerializationError, match=r'the recorded result of step "x" .* it does not fit the return annotation'
    ):
        await step("x", fetch)


async def test_annotation_that_says_nothing_is_refused_before_the_function_is_called(run: FakeRun) -> None:
    calls = []

    def unknown() -> NotThere:  # type: ignore[name-defined] # noqa: F821
        calls.append(1)

    with pytest.raises(DefinitionError, match=r"step \"x\": the return annotation 'NotThere' cannot be resolved"):
        await step("x", unknown)
    with pytest.raises(
        DefinitionError, match=r'step "x": the return annotation .*Opaque.* is no type that pydantic knows'
    ):
        await step("x", Opaque.made)

    assert calls == []
    assert run.steps == []


# ---- retries ----


@pytest.mark.parametrize("form", ["fetch", "take"])
async def test_step_is_tried_again_inside_the_run(run: FakeRun, form: str) -> None:
    counted = Counted(ValueError("one"), OSError("two"))
    fn = counted.fetch if form == "fetch" else counted.take
    tried: Callable[..., Coroutine[Any, Any, Any]] = step("x", step(name="y", retry=AT_ONCE)(fn))  # type: ignore[assignment]

    assert await tried == 1.5  # type: ignore[misc]
    assert len(counted.calls) == 3
    assert [(level, message) for level, message, _ in run.lines] == [
        ("warn", 'step "x" failed and is tried again in 0 s: ValueError: one'),
        ("warn", 'step "x" failed and is tried again in 0 s: OSError: two'),
    ]


async def test_last_failure_is_raised_and_recorded(run: FakeRun) -> None:
    errors = [ValueError("one"), ValueError("two"), ValueError("three")]

    @step(retry=AT_ONCE)
    async def fetch() -> None:
        raise errors.pop(0)

    last = errors[-1]
    with pytest.raises(ValueError, match="three") as raised:
        await fetch()

    assert raised.value is last
    assert '"three"' in str(run.records["fetch", 0][1])


async def test_retries_wait_as_the_policy_says(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    counted = Counted(*[ValueError("boom")] * 3)
    policy = Retry(max_attempts=4, min_timeout="1s", max_timeout="3s", randomize=False)

    await step("x", step(retry=policy)(counted.fetch))

    assert waited == [1, 2, 3]


@pytest.mark.parametrize("error", [AbortTaskRunError("no"), RunCancelledError("run_1")])
async def test_some_errors_are_not_tried_again(run: FakeRun, error: Exception) -> None:
    counted = Counted(error)

    with pytest.raises(type(error)) as raised:
        await step("x", step(retry=AT_ONCE)(counted.fetch))

    assert raised.value is error
    assert len(counted.calls) == 1


async def test_without_a_policy_a_step_is_tried_once(run: FakeRun) -> None:
    counted = Counted(ValueError("boom"))

    with pytest.raises(ValueError, match="boom"):
        await step("x", counted.fetch)
    assert len(counted.calls) == 1


async def test_stop_iteration_leaves_its_thread(run: FakeRun) -> None:
    with pytest.raises(RuntimeError, match="the step raised StopIteration"):
        await step("x", Counted(StopIteration()).take)


# ---- failures ----


class DeclinedError(Exception):
    def __init__(self, reason: str, *, code: int) -> None:
        super().__init__(f"declined: {reason}")
        self.reason, self.code, self.at = reason, code, datetime.now(UTC)


class PickyError(Exception):
    def __new__(cls, one: int, two: object) -> Self:
        return super().__new__(cls)


class SilentError(Exception):
    def __init__(self, answer: object) -> None:
        self.answer = answer

    def __str__(self) -> str:
        return f"answer {self.answer}"


def raised(error: Exception) -> Exception:
    """Return *error* as it is when it was raised."""
    try:
        raise error
    except Exception as caught:  # noqa: BLE001 - whatever it is
        return caught


async def test_failure_is_raised_again_by_a_replay(run: FakeRun) -> None:
    counted = Counted(DeclinedError("no money", code=7))

    with pytest.raises(DeclinedError):
        await step("charge", counted.fetch)
    run.begin_again()
    with pytest.raises(DeclinedError, match="declined: no money") as again:
        await step("charge", counted.fetch)

    assert (again.value.reason, again.value.code) == ("no money", 7)
    assert again.value.__notes__[0].startswith("recorded when the step was taken, and raised again by a replay")
    assert "in take" in again.value.__notes__[0]
    assert len(counted.calls) == 1


@pytest.mark.parametrize(
    "error",
    [
        ValueError("boom"),
        KeyError("boom"),
        FileNotFoundError(2, "No such file"),
        AbortTaskRunError("no"),
        NotFoundError("there is no run", code="run_not_found"),
        Exception(),
        SilentError(5),
        ValueError("a", 1, None, 2.5, True),
    ],
    ids=repr,
)
def test_failure_is_rebuilt_as_it_was(error: Exception) -> None:
    again = rebuild(failure_to_text(raised(error)))

    assert type(again) is type(error)
    assert (again.args, str(again)) == (error.args, str(error))
    assert getattr(again, "errno", None) == getattr(error, "errno", None)
    assert getattr(again, "code", None) == getattr(error, "code", None)


def test_arguments_that_are_not_plain_are_replaced_by_the_message() -> None:
    again = rebuild(failure_to_text(ValueError("boom", object)))

    assert type(again) is ValueError
    assert again.args == (str(ValueError("boom", object)),)
    assert type(rebuild(failure_to_text(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")))) is UnicodeDecodeError


def local_error() -> Exception:
    class LocalError(Exception):
        pass

    return LocalError("boom")


@pytest.mark.parametrize(
    ("error", "name", "message"),
    [
        (local_error(), "LocalError", "boom"),
        (PickyError(1, list), "PickyError", "(1, <class 'list'>)"),
        (SilentError(object), "SilentError", "answer <class 'object'>"),
        (ExceptionGroup("many", [ValueError("boom")]), "ExceptionGroup", "many (1 sub-exception)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_failure_that_cannot_be_rebuilt_is_a_step_error(error: Exception, name: str, message: str) -> None:
    again = rebuild(failure_to_text(error))

    assert type(again) is StepError
    assert (again.name, again.message) == (name, message)
    assert str(again) == f"{name}: {message}"


@pytest.mark.parametrize(
    ("module", "qualname"),
    [
        ("antigravity", "Error"),
        ("os", "system"),
        ("builtins", "SystemExit"),
        ("builtins", "dict"),
        ("", ""),
        ("builtins", "ValueError.args"),
    ],
)
def test_nothing_but_a_loaded_exception_is_rebuilt(module: str, qualname: str) -> None:
    text = failure_to_text(ValueError("boom"))
    text = text.replace('"module":"builtins"', f'"module":"{module}"').replace(
        '"qualname":"ValueError"', f'"qualname":"{qualname}"'
    )

    assert type(rebuild(text)) is StepError
    assert "antigravity" not in sys.modules


# ---- fingerprints ----


class Client:
    def __init__(self, url: str) -> None:
        self.url = url


def countdown() -> Iterator[int]:
    yield from (3, 2, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, "a", None, 2.5), (1, "a", None, 2.5)),
        (({"a": 1, "b": 2},), ({"b": 2, "a": 1},)),
        (([1, 2],), ((1, 2),)),
        ((Client("a"),), (Client("b"),)),
        (({"client": Client("a"), "n": 1},), ({"client": Client("b"), "n": 1},)),
        ((Rate(currency="EUR", value=1),), (Rate(currency="EUR", value=1),)),
        ((countdown(),), (countdown(),)),
        ((print,), (len,)),
    ],
)
def test_calls_with_the_same_fingerprint(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert fingerprint.of(one, {}) == fingerprint.of(other, {})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1,), (2,)),
        ((1,), ("1",)),
        ((1, 2), ([1, 2],)),
        ((None,), ()),
        ((Client("a"),), (Point(1),)),
        (({"client": Client("a"), "n": 1},), ({"client": Client("a"), "n": 2},)),
        ((Rate(currency="EUR", value=1),), (Rate(currency="EUR", value=2),)),
        ((Point(1),), (Point(2),)),
        ((b"\xff",), (b"\xfe",)),
        (({1, 2},), ({1, 3},)),
        (("\ud800",), ("\ud801",)),
    ],
)
def test_calls_with_different_fingerprints(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert fingerprint.of(one, {}) != fingerprint.of(other, {})
    assert fingerprint.of((), {"it": one}) != fingerprint.of((), {"it": other})


def test_iterator_is_not_used_up_by_its_fingerprint() -> None:
    given = countdown()

    fingerprint.of((given, [given], {"it": given}), {"it": given})

    assert list(given) == [3, 2, 1]


def test_fingerprint_is_the_same_in_every_process() -> None:
    assert fingerprint.of(("EUR", {"b", "a", "c"}), {"n": 1}) == fingerprint.of(("EUR", {"c", "b", "a"}), {"n": 1})
    assert fingerprint.of(("EUR",), {"n": 1}) == "715ea2c112e23aa8"


def test_fingerprint_of_what_holds_itself() -> None:
    loop: list[object] = []
    loop.append(loop)

    assert fingerprint.of((loop,), {}) == fingerprint.of((loop,), {})


async def test_context_counts_by_its_type(run: FakeRun) -> None:
    async def fetch(ctx: object) -> None: ...

    await step("fetch", fetch, run.context)
    object.__setattr__(run.context.attempt, "number", run.context.attempt.number + 1)
    await step("fetch", fetch, run.context)

    assert len({mark for _, mark in run.steps}) == 1
