"""`retry`: a piece of a task, or an HTTP request, tried again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from detent import AbortTaskRunError, AtReset, BlockingCallError, DefinitionError, FetchRetry, ResetFormat, Retry, retry
from detent.sdk import fetching
from detent.sdk.statuses import Statuses
from tests.sdk.fake_run import FakeRun

QUICK = Retry(max_attempts=3, min_timeout="1ms", max_timeout="1ms")
URL = "http://shop.test/rates"


class Server:
    """Answers requests one after the other, with the last answer for ever."""

    def __init__(self) -> None:
        self.answers: list[int | type[Exception] | dict[str, str]] = []
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, type):
            raise answer("no answer")
        if isinstance(answer, dict):
            return httpx.Response(429, headers=answer)
        return httpx.Response(answer, json={"tries": len(self.requests)})


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(server)) as client:
        yield client


async def test_what_raises_is_called_again_with_the_number_of_the_try(run: FakeRun) -> None:
    numbers: list[int] = []

    async def third(number: int) -> str:
        numbers.append(number)
        if number < 3:
            raise ConnectionError("away")
        return "there"

    assert await retry.on_throw(third, QUICK) == "there"
    assert numbers == [1, 2, 3]
    assert [level for level, _, _ in run.lines] == ["warn", "warn"]


async def test_what_takes_no_number_is_called_without() -> None:
    calls: list[str] = []

    async def third(currency: str = "EUR") -> str:
        calls.append(currency)
        if len(calls) < 3:
            raise ConnectionError("away")
        return "there"

    assert await retry.on_throw(third, QUICK) == "there"
    assert calls == ["EUR"] * 3


async def test_options_may_be_given_by_their_names() -> None:
    numbers: list[int] = []

    async def never(number: int) -> None:
        numbers.append(number)
        raise ConnectionError("away")

    with pytest.raises(ConnectionError):
        await retry.on_throw(never, max_attempts=2, min_timeout="1ms", factor=1, randomize=False)
    assert numbers == [1, 2]


async def test_options_that_cannot_be_meant_are_refused() -> None:
    async def work() -> None: ...

    with pytest.raises(TypeError, match=r"unknown option 'max_attempt'; did you mean .max_attempts."):
        await retry.on_throw(work, max_attempt=2)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="give a Retry, or the option factor=, and not both"):
        await retry.on_throw(work, QUICK, factor=2)


async def test_the_error_of_the_last_try_is_raised() -> None:
    async def never(number: int) -> None:
        raise ConnectionError(f"away {number}")

    with pytest.raises(ConnectionError, match="away 3"):
        await retry.on_throw(never, QUICK)


async def test_an_abort_ends_the_tries() -> None:
    numbers: list[int] = []

    async def abort(number: int) -> None:
        numbers.append(number)
        raise AbortTaskRunError("no use")

    with pytest.raises(AbortTaskRunError):
        await retry.on_throw(abort, QUICK)
    assert numbers == [1]


def test_a_plain_function_is_called_in_the_calling_thread() -> None:
    import threading

    threads: list[str] = []

    def second(number: int) -> int:
        threads.append(threading.current_thread().name)
        if number == 1:
            raise LookupError
        return number

    assert retry.sync.on_throw(second, QUICK) == 2
    assert retry.sync.on_throw(lambda: "there", max_attempts=2) == "there"
    assert set(threads) == {threading.current_thread().name}


async def test_the_blocking_twin_is_refused_on_a_running_loop() -> None:
    with pytest.raises(BlockingCallError, match=r"await retry\.on_throw\(…\) instead"):
        retry.sync.on_throw(lambda: None)


async def test_a_status_that_is_named_is_tried_again(server: Server, client: httpx.AsyncClient) -> None:
    server.answers = [503, 429, 200]
    every = FetchRetry(by_status={"429": QUICK, "500-599": QUICK})

    response = await retry.fetch(URL, retry=every, client=client, method="POST", json={"a": 1}, params={"q": "x"})

    assert response.json() == {"tries": 3}
    assert [(request.method, str(request.url)) for request in server.requests] == [("POST", f"{URL}?q=x")] * 3
    assert json.loads(server.requests[-1].content) == {"a": 1}


async def test_other_statuses_are_answers(server: Server, client: httpx.AsyncClient) -> None:
    server.answers = [404]
    assert (await retry.fetch(URL, client=client)).status_code == 404
    assert len(server.requests) == 1


async def test_the_status_of_the_last_try_is_raised(server: Server, client: httpx.AsyncClient) -> None:
    server.answers = [500]
    with pytest.raises(httpx.HTTPStatusError, match="500"):
        await retry.fetch(URL, retry=FetchRetry(by_status={"500": QUICK}), client=client)
    assert len(server.requests) == 3


@pytest.mark.parametrize(("error", "tries"), [(httpx.ReadTimeout, 2), (httpx.ConnectError, 3)])
async def test_time_outs_and_broken_connections_have_tries_of_their_own(
    server: Server, client: httpx.AsyncClient, error: type[Exception], tries: int
) -> None:
    server.answers = [error]
    two = Retry(max_attempts=2, min_timeout="1ms", max_timeout="1ms")
    with pytest.raises(error):
        await retry.fetch(URL, retry=FetchRetry(timeout=two, connection=QUICK), client=client, timeout="5s")
    assert len(server.requests) == tries
    assert server.requests[0].extensions["timeout"]["read"] == 5.0


async def test_no_policy_means_no_second_try(server: Server, client: httpx.AsyncClient) -> None:
    server.answers = [httpx.ConnectError]
    with pytest.raises(httpx.ConnectError):
        await retry.fetch(URL, retry=FetchRetry(connection=None), client=client)
    assert len(server.requests) == 1


SAID: list[tuple[ResetFormat, Callable[[datetime], str]]] = [
    (ResetFormat.SECONDS, lambda _: "60"),
    (ResetFormat.DURATION, lambda _: "59s1000ms"),
    (ResetFormat.DURATION, lambda _: "1m0.0s"),
    (ResetFormat.UNIX_SECONDS, lambda then: str(then.timestamp())),
    (ResetFormat.UNIX_MILLISECONDS, lambda then: str(round(then.timestamp() * 1000))),
    (ResetFormat.ISO_8601, lambda then: then.isoformat()),
    (ResetFormat.ISO_8601, lambda then: then.strftime("%Y-%m-%dT%H:%M:%SZ")),
]


@pytest.mark.parametrize(("said", "text"), SAID)
async def test_a_header_says_when_to_try_again(
    server: Server, client: httpx.AsyncClient, said: ResetFormat, text: Callable[[datetime], str]
) -> None:
    server.answers = [{"x-reset": text(datetime.now(UTC) + timedelta(seconds=60))}, 200]
    every = FetchRetry(by_status={"429": AtReset(reset="x-reset", format=said)})
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    response = await fetching.fetch(URL, every, {"client": client}, sleep)

    assert response.status_code == 200
    assert [58 < pause < 61 for pause in pauses] == [True]


@pytest.mark.parametrize("headers", [{}, {"x-reset": "soon"}, {"x-reset": "nan"}])
async def test_a_response_that_does_not_say_when_is_the_answer(
    server: Server, client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    server.answers = [headers]
    every = FetchRetry(by_status={"429": AtReset(reset="x-reset")})

    assert (await retry.fetch(URL, retry=every, client=client)).status_code == 429
    assert len(server.requests) == 1


async def test_a_server_that_has_some_left_is_not_waited_for(server: Server, client: httpx.AsyncClient) -> None:
    server.answers = [{"x-left": "3", "x-reset": "3600"}, {"x-left": "0", "x-reset": "3600"}, 200]
    every = FetchRetry(by_status={429: AtReset(reset="x-reset", remaining="x-left")})
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    assert (await fetching.fetch(URL, every, {"client": client}, sleep)).status_code == 200
    soon, late = pauses
    assert soon <= 2
    assert late == 3600


async def test_tries_of_a_request_leave_lines_in_the_log(
    server: Server, client: httpx.AsyncClient, run: FakeRun
) -> None:
    server.answers = [{"x-left": "0", "x-limit": "100", "x-reset": "0.001"}, httpx.ConnectError, 200]
    limited = AtReset(reset="x-reset", remaining="x-left", limit="x-limit")
    every = FetchRetry(by_status={429: limited}, connection=QUICK)

    await retry.fetch("http://me:secret@shop.test/rates?token=secret", retry=every, client=client)

    (level, answered, facts), (_, failed, _) = run.lines
    assert level == "warn"
    assert answered == f"try 1 of GET {URL} was answered with 429; it is followed by another in 0.001 s"
    assert facts == {"try": 1, "remaining": 0, "limit": 100}
    assert failed.startswith(f"try 2 of GET {URL} failed: ConnectError: no answer; it is followed by another in ")


async def test_a_response_itself_may_say_that_no_try_is_worth_it(server: Server, client: httpx.AsyncClient) -> None:
    server.answers = [500]
    every = FetchRetry(by_status={"5xx": QUICK}, retry_if=lambda response: response.json()["tries"] < 2)

    assert (await retry.fetch(URL, retry=every, client=client)).status_code == 500
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("named", "held", "others"),
    [
        (429, {429}, {428, 430}),
        ("429", {429}, {428, 430}),
        ("5xx", {500, 599}, {499, 600}),
        ("42x", {420, 429}, {419, 430}),
        ("500-503", {500, 503}, {499, 504}),
        ("429,408", {408, 429}, {409}),
        ("408, 42x, 5xx", {408, 425, 503}, {404}),
        (range(500, 600), {500, 599}, {499, 600}),
    ],
)
def test_statuses_may_be_named_in_several_ways(named: Statuses, held: set[int], others: set[int]) -> None:
    every = FetchRetry(by_status={named: QUICK})

    assert {every.of_status(status) for status in held} == {QUICK}
    assert {every.of_status(status) for status in others} == {None}


@pytest.mark.parametrize("named", ["", "5x", "xxx", "5xxx", "42xx", "599-500", "4-5", "429,", None])
def test_statuses_that_are_none_are_refused_at_once(named: Statuses) -> None:
    with pytest.raises(DefinitionError, match=r"FetchRetry\(by_status=\): .* names no statuses; one is 429"):
        FetchRetry(by_status={named: QUICK})
