"""Tokens as callers see them, inside a run and outside; and the keys of waits."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from detent import (
    Client,
    ConflictError,
    DetentError,
    Err,
    NotFoundError,
    Ok,
    OutsideRunError,
    ResultMisuseError,
    RunError,
    SerializationError,
    Token,
    TokenFailedError,
    TokenStatus,
    TooManyTagsError,
    WaitTimeoutError,
    wait,
)
from detent.engine.backend import EngineBackend
from detent.protocol import ids
from detent.protocol.idempotency import WaitKey
from detent.protocol.ids import WaitpointId
from detent.protocol.run_error import ErrorCode, internal
from detent.protocol.waits import WaitResult
from detent.sdk import portal, schema
from tests.sdk.fake_run import FakeRun

UNKNOWN = "waitpoint_01h455vb4pex5vsknk084sn02q"
UNTYPED: Any = wait
"""For calls that type checkers refuse, and that are refused before there is anything to await."""


class Approval(BaseModel):
    status: str


def comes_to(run: FakeRun, output: str | None = None, error: RunError | None = None) -> WaitpointId:
    """Return the id of a token that the run will find completed like this."""
    token_id = ids.new_waitpoint_id()
    run.token_results[token_id] = WaitResult(operation="0", output=output, error=error)
    return token_id


# ---- inside a run


async def test_token_made_by_a_run_goes_through_its_journal(run: FakeRun) -> None:
    token = await wait.create_token(output=Approval, timeout="10m", tags=["user:7", " ", "user:7"])

    (request,) = run.tokens
    assert (request.waitpoint_id, request.timeout, request.tags) == (token.id, timedelta(minutes=10), ("user:7",))
    assert (request.key, token.is_cached) == (None, False)


async def test_result_is_of_the_type_that_the_token_was_made_with(run: FakeRun) -> None:
    token = await wait.create_token(output=Approval)
    run.token_results[token.id] = WaitResult(operation="0", output='{"status":"approved"}')

    result = await wait.for_token(token)

    assert result == Ok(Approval(status="approved"), id=token.id)
    assert (result.ok, result.unwrap().status) == (True, "approved")


@pytest.mark.parametrize(
    ("options", "text", "output"),
    [
        ({}, '{"status":"ok"}', {"status": "ok"}),
        ({"output": Approval}, '{"status":"ok"}', Approval(status="ok")),
        ({"output": TypeAdapter(list[int])}, "[1,2]", [1, 2]),
        ({}, None, None),
        ({}, "null", None),
    ],
)
async def test_token_is_waited_for_by_its_id(run: FakeRun, options: Any, text: str | None, output: object) -> None:
    assert await wait.for_token(comes_to(run, text), **options).unwrap() == output


async def test_token_that_timed_out_is_an_error(run: FakeRun) -> None:
    token_id = comes_to(run, error=internal(ErrorCode.TOKEN_TIMED_OUT, "nobody completed the token before noon"))

    match await wait.for_token(token_id):
        case Err(error):
            assert error.message == "nobody completed the token before noon"
        case Ok():
            pytest.fail("it timed out")
    with pytest.raises(WaitTimeoutError, match=f"the wait for token {token_id} timed out: nobody") as raised:
        await wait.for_token(token_id).unwrap()
    assert raised.value.token_id == token_id


async def test_token_that_was_completed_with_an_error_is_one(run: FakeRun) -> None:
    token_id = comes_to(run, error=RunError(name="Rejected", message="no"))

    with pytest.raises(TokenFailedError, match=f"token {token_id} was completed with an error: Rejected: no"):
        await wait.for_token(token_id).unwrap()


async def test_result_of_a_token_explains_itself(run: FakeRun) -> None:
    result = await wait.for_token(comes_to(run, "5"))

    with pytest.raises(ResultMisuseError, match=r"\.error of a token that succeeded"):
        result.error


async def test_output_that_does_not_fit_is_named(run: FakeRun) -> None:
    token_id = comes_to(run, '{"state":1}')

    with pytest.raises(SerializationError, match=f"what token {token_id} was completed with .* does not fit output="):
        await wait.for_token(token_id, output=Approval)


async def test_waits_for_tokens_go_side_by_side(run: FakeRun) -> None:
    one, two = comes_to(run, "1"), comes_to(run, "2")

    assert list(await asyncio.gather(wait.for_token(one).unwrap(), wait.for_token(two).unwrap())) == [1, 2]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(wait.for_token(one))
    assert task.result() == Ok(1, id=one)


async def test_blocking_twins_in_a_thread(run: FakeRun) -> None:
    def work() -> object:
        token = wait.sync.create_token(output=Approval)
        run.token_results[token.id] = WaitResult(operation="0", output='{"status":"ok"}')
        return wait.sync.for_token(token).unwrap()

    assert await asyncio.to_thread(work) == Approval(status="ok")


async def test_wait_that_nobody_awaits_is_warned_of(run: FakeRun) -> None:
    with pytest.warns(RuntimeWarning, match=r"coroutine 'wait\.for_token' was never awaited"):
        UNTYPED.for_token(comes_to(run))


# ---- keys of waits


async def test_key_of_a_pause_is_passed_as_it_is(run: FakeRun) -> None:
    await wait.for_(days=1, idempotency_key="trial", idempotency_key_ttl="1h")
    await wait.until(datetime(2900, 1, 1, tzinfo=UTC), idempotency_key="x")
    await wait.for_(days=1)

    assert run.keys == [WaitKey(key="trial", ttl=timedelta(hours=1)), WaitKey(key="x"), None]


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"idempotency_key": ""}, ValueError, "1 to 2,048 bytes"),
        ({"idempotency_key": "x" * 2049}, ValueError, "over the limit of 2048"),
        ({"idempotency_key": "é" * 1500}, ValueError, "1 to 2,048 bytes"),
        ({"idempotency_key": "a\x00"}, ValueError, "NUL"),
        ({"idempotency_key": 7}, TypeError, "must be text"),
        (
            {"idempotency_key": "k", "idempotency_key_ttl": "soon"},
            ValueError,
            "idempotency_key_ttl: 'soon' is no duration",
        ),
        ({"idempotency_key_ttl": "1h"}, TypeError, "give idempotency_key="),
    ],
)
async def test_bad_key_is_refused_at_the_call(run: FakeRun, options: Any, error: type[Exception], why: str) -> None:
    for call in (lambda: wait.for_(days=1, **options), lambda: wait.create_token(**options)):
        with pytest.raises(error) as refused:
            call()
        assert why in str(refused.value)


# ---- what is wrong


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"tags": [str(n) for n in range(11)]}, TooManyTagsError, "11 tags are over the limit of 10"),
        ({"tags": ["x" * 129]}, ValueError, "over the limit of 128"),
        ({"timeout": "soon"}, ValueError, "timeout: 'soon' is no duration"),
        ({"timeout": datetime(2900, 1, 1)}, ValueError, "naive datetime"),
        ({"timeout": -1}, ValueError, "negative"),
    ],
)
def test_bad_options_of_a_token_are_refused_at_the_call(options: Any, error: type[Exception], why: str) -> None:
    with pytest.raises(error) as refused:
        UNTYPED.create_token(**options)
    assert why in str(refused.value)


@pytest.mark.parametrize("call", [wait.for_token, wait.complete_token, wait.retrieve_token])
@pytest.mark.parametrize(
    ("name", "error"), [("run_01h455vb4pex5vsknk084sn02q", ValueError), ("x", ValueError), (5, TypeError)]
)
def test_what_names_no_token_is_refused_at_the_call(call: Any, name: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        call(name)


def test_type_of_a_token_is_told_once() -> None:
    token: Token[object] = Token(WaitpointId(UNKNOWN), "http://…", schema=schema.PLAIN)
    with pytest.raises(TypeError, match="output= is for a token given by its id"):
        UNTYPED.retrieve_token(token, output=Approval)


def test_waits_outside_a_run_are_refused() -> None:
    with pytest.raises(OutsideRunError, match=r"wait\.for_token needs a run"):
        UNTYPED.for_token(UNKNOWN)


def test_public_access_token_says_that_it_comes_later() -> None:
    token: Token[object] = Token(WaitpointId(UNKNOWN), "http://…/secret", schema=schema.PLAIN)
    with pytest.raises(DetentError, match=r"not available yet.*HTTP server"):
        token.public_access_token
    assert "secret" not in repr(token)


# ---- outside a run, on a database


async def test_token_is_made_completed_and_read_outside_a_run(home: str) -> None:
    token = await wait.create_token(output=Approval, tags="user:7", timeout="1h")
    before = await wait.retrieve_token(token)
    assert (before.status, before.output, before.completed_at) == (TokenStatus.WAITING, None, None)
    assert before.timeout_at == before.created_at + timedelta(hours=1)

    assert await wait.complete_token(token, Approval(status="approved")) is True
    assert await wait.complete_token(token.id, {"status": "denied"}) is False

    after = await wait.retrieve_token(token)
    assert (after.status, after.output, after.error) == (TokenStatus.COMPLETED, Approval(status="approved"), None)
    assert (await wait.retrieve_token(token.id)).output == {"status": "approved"}
    assert (await wait.retrieve_token(token.id, output=Approval)).output == Approval(status="approved")
    assert (after.tags, after.url) == (("user:7",), token.url)


async def test_url_holds_the_secret(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await wait.create_token()
    path = f"/api/v1/waitpoints/tokens/{token.id}/callback/"
    assert token.url.startswith(f"http://localhost:8030{path}")
    secret = token.url.removeprefix(f"http://localhost:8030{path}")
    assert len(secret) == 64

    monkeypatch.setenv("DETENT_API_URL", "https://detent.example.com/")
    assert (await wait.retrieve_token(token)).url == f"https://detent.example.com{path}{secret}"


async def test_data_that_does_not_fit_completes_nothing(home: str) -> None:
    token = await wait.create_token(output=Approval)
    with pytest.raises(SerializationError, match=f"the data for token {token.id} .* does not fit the output="):
        UNTYPED.complete_token(token, {"state": 1})
    with pytest.raises(SerializationError):
        UNTYPED.complete_token(token.id, object())
    assert (await wait.retrieve_token(token)).status is TokenStatus.WAITING


async def test_key_gives_the_same_token(home: str) -> None:
    first = await wait.create_token(idempotency_key="order-7", idempotency_key_ttl="1d")
    second = await wait.create_token(idempotency_key="order-7")
    assert (second.id, second.url, first.is_cached, second.is_cached) == (first.id, first.url, False, True)
    found = await wait.retrieve_token(first.id)
    assert found.idempotency_key == "order-7"
    assert found.idempotency_key_expires_at is not None
    assert abs(found.idempotency_key_expires_at - found.created_at - timedelta(days=1)) < timedelta(minutes=1)


async def test_token_that_is_not_there(home: str) -> None:
    for call in (wait.complete_token(UNKNOWN), wait.retrieve_token(UNKNOWN)):
        with pytest.raises(NotFoundError, match=f"there is no token {UNKNOWN}"):
            await call


async def test_key_that_a_pause_has_is_refused(home: str, engine: EngineBackend, conn: Any) -> None:
    await engine.list_tasks()
    await conn.execute(
        """with waitpoint as (
          insert into detent.waitpoints (id, environment_id, kind, due_at, is_shared)
          select %s, id, 'time', now(), true from detent.environments returning id, environment_id
        )
        insert into detent.waitpoint_keys (environment_id, key, waitpoint_id) select environment_id, 'k', id from waitpoint""",
        [ids.decode("waitpoint", UNKNOWN)],
    )
    with pytest.raises(ConflictError, match='the idempotency key "k" is taken'):
        await wait.create_token(idempotency_key="k")


async def test_tokens_are_listed_page_by_page(home: str) -> None:
    made = [(await wait.create_token(tags=["a" if n % 2 else "b"])).id for n in range(5)][::-1]

    page = await wait.list_tokens(limit=2)
    assert ([token.id for token in page], len(page), page.has_next_page) == (made[:2], 2, True)
    following = await page.next_page()
    assert following is not None
    assert [token.id for token in following] == made[2:4]
    assert [token.id async for token in wait.list_tokens(limit=2)] == made
    assert [token.id async for token in wait.list_tokens(tags="a")] == made[1::2]
    await wait.complete_token(made[0], 1)
    assert [token.id async for token in wait.list_tokens(status="COMPLETED")] == made[:1]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"status": "DONE"}, "'DONE' is no status of a token"),
        ({"limit": 0}, "1 to 100"),
        ({"created_after": datetime(2020, 1, 1)}, "naive"),
    ],
)
def test_bad_filter_is_refused_at_the_call(options: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        UNTYPED.list_tokens(**options)


def test_everything_has_a_blocking_twin(home: str) -> None:
    token = wait.sync.create_token(output=Approval)
    assert wait.sync.complete_token(token, Approval(status="ok"))
    assert wait.sync.retrieve_token(token).output == Approval(status="ok")
    assert [found.id for found in wait.sync.list_tokens(limit=1).sync] == [token.id]
    portal.close_portal()


async def test_client_has_tokens_too(home: str, dsn: str) -> None:
    async with Client(database_url=dsn, environment="other") as client:
        token = await client.wait.create_token()
        assert await client.wait.complete_token(token.id, 1)
        with pytest.raises(NotFoundError):
            await wait.retrieve_token(token.id)
        with pytest.raises(TypeError, match="cannot wait inside a run"):
            client.wait.for_token(token)
