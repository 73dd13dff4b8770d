"""Tokens, which somebody completes from anywhere; and idempotency keys of tokens and of waits for a moment."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from detent.protocol import ids
from detent.protocol.fence import Stale
from detent.protocol.idempotency import WaitKey
from detent.protocol.ids import WaitpointId
from detent.protocol.journal import JournalRead
from detent.protocol.leases import Lease
from detent.protocol.operations import Origin
from detent.protocol.refusal import Refused
from detent.protocol.run_error import ErrorCode
from detent.protocol.status import RunStatus, TokenStatus
from detent.protocol.tokens import TokenCompletion, TokenCreated, TokenFilter, TokenRecord, TokenRequest
from detent.protocol.waits import Pending, Suspended, TimeWait, TokenWait, WaitResult
from tests.database import Clock
from tests.engine.stage import BOOM, Stage, Worker, holder, origin

HOUR = timedelta(hours=1)
KEY = WaitKey(key="order-7")


def token_request(**options: Any) -> TokenRequest:
    fields: dict[str, Any] = {"waitpoint_id": ids.new_waitpoint_id()} | options
    return TokenRequest(**fields)


def token_wait(lease: Lease, token_id: WaitpointId, operation: str = "0", *, suspends: bool = True) -> TokenWait:
    place = Origin(holder=holder(lease), operation=operation, wait=True, suspends=suspends)
    return TokenWait(origin=place, waitpoint_id=token_id)


def keyed_wait(lease: Lease, operation: str = "0", until: timedelta = HOUR, key: WaitKey = KEY) -> TimeWait:
    return TimeWait(origin=origin(lease, operation), until=until, waitpoint_id=ids.new_waitpoint_id(), key=key)


async def create(stage: Stage, **options: Any) -> TokenCreated:
    (created,) = await stage.engine.create_tokens([token_request(**options)])
    assert isinstance(created, TokenCreated)
    return created


async def complete(stage: Stage, token: TokenCreated, output: str | None = '{"status":"approved"}') -> bool | None:
    (answer,) = await stage.engine.complete_tokens([TokenCompletion(waitpoint_id=token.waitpoint_id, output=output)])
    return answer


async def read(stage: Stage, token: TokenCreated) -> TokenRecord:
    (record,) = await stage.engine.retrieve_tokens([token.waitpoint_id])
    assert record is not None
    return record


async def wait(stage: Stage, *waits: TokenWait | TimeWait) -> Any:
    answers = await stage.engine.wait_for(waits)
    return answers[0] if len(waits) == 1 else answers


# ---- completing


async def test_a_token_wakes_the_run_that_waits_for_it(stage: Stage, worker: Worker) -> None:
    token = await create(stage)
    lease = await stage.leased(worker)
    assert await wait(stage, token_wait(lease, token.waitpoint_id)) == Suspended()
    run = await stage.run(lease.run_id)
    assert run.waiting_reason is not None
    assert (run.waiting_reason.code, run.waiting_reason.text) == (
        "WAITS_FOR_TOKEN",
        f"waits for token {token.waitpoint_id}",
    )
    assert await complete(stage, token) is True
    resumed = await worker.lease_one()
    assert resumed.results == (WaitResult(operation="0", output='{"status":"approved"}'),)
    await worker.succeed(resumed)
    assert (await read(stage, token)).status is TokenStatus.COMPLETED


async def test_a_token_may_be_completed_before_anyone_waits(stage: Stage, worker: Worker) -> None:
    token = await create(stage)
    assert await complete(stage, token, "5") is True
    lease = await stage.leased(worker)
    assert await wait(stage, token_wait(lease, token.waitpoint_id)) == WaitResult(operation="0", output="5")
    assert await stage.status(lease.run_id) is RunStatus.DEQUEUED


async def test_a_token_wakes_everybody_who_waits_for_it(stage: Stage, worker: Worker) -> None:
    token = await create(stage)
    leases = [await stage.leased(worker) for _ in range(5)]
    await wait(stage, *(token_wait(lease, token.waitpoint_id) for lease in leases))
    await complete(stage, token, "7")
    resumed = await worker.lease()
    assert {lease.run_id for lease in resumed} == {lease.run_id for lease in leases}
    assert {result.output for lease in resumed for result in lease.results} == {"7"}


async def test_the_first_completion_counts(stage: Stage, worker: Worker) -> None:
    token = await create(stage)
    assert [await complete(stage, token, output) for output in ("1", "2", None)] == [True, False, False]
    assert (await read(stage, token)).output == "1"


async def test_of_two_completions_in_one_call_the_first_counts(stage: Stage) -> None:
    token, other = await create(stage), await create(stage)
    completions = [
        TokenCompletion(waitpoint_id=id_, output=output)
        for id_, output in ((token.waitpoint_id, "1"), (other.waitpoint_id, "2"), (token.waitpoint_id, "3"))
    ]
    assert await stage.engine.complete_tokens(completions) == [True, True, False]
    assert ((await read(stage, token)).output, (await read(stage, other)).output) == ("1", "2")


async def test_a_token_may_be_completed_without_an_output_or_with_an_error(stage: Stage, worker: Worker) -> None:
    empty, broken = await create(stage), await create(stage)
    await complete(stage, empty, None)
    await stage.engine.complete_tokens([TokenCompletion(waitpoint_id=broken.waitpoint_id, error=BOOM)])
    lease = await stage.leased(worker)
    waits = [token_wait(lease, token.waitpoint_id, str(i)) for i, token in enumerate((empty, broken))]
    assert await wait(stage, *waits) == [WaitResult(operation="0"), WaitResult(operation="1", error=BOOM)]
    assert (await read(stage, broken)).status is TokenStatus.COMPLETED


async def test_what_is_no_token_is_not_completed(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    moment = keyed_wait(lease)
    await wait(stage, moment)
    for stranger in (ids.new_waitpoint_id(), moment.waitpoint_id):
        assert await stage.engine.complete_tokens([TokenCompletion(waitpoint_id=stranger)]) == [None]
        assert await stage.engine.retrieve_tokens([stranger]) == [None]
    assert await stage.status(lease.run_id) is RunStatus.WAITING


async def test_a_wait_for_a_token_that_is_not_there_is_refused(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    answer = await wait(stage, token_wait(lease, ids.new_waitpoint_id()))
    assert isinstance(answer, Refused)
    assert (answer.status, answer.code) == (404, "unknown_token")
    assert await stage.count("journal") == 0


async def test_a_run_that_goes_on_collects_what_its_token_came_to(stage: Stage, worker: Worker) -> None:
    token = await create(stage)
    lease = await stage.leased(worker)
    assert await wait(stage, token_wait(lease, token.waitpoint_id, suspends=False)) == Pending()
    assert await stage.engine.collect([holder(lease)]) == []
    await complete(stage, token, "3")
    (delivery,) = await stage.engine.collect([holder(lease)])
    assert delivery.results == (WaitResult(operation="0", output="3"),)
    await worker.succeed(lease)


async def test_a_token_outlives_the_run_that_made_it_and_waited(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    token = await create(stage, origin=origin(lease, "0", wait=False))
    await wait(stage, token_wait(lease, token.waitpoint_id, "1"))
    await stage.engine.cancel_runs([lease.run_id], "enough")
    assert await complete(stage, token) is True
    assert await worker.lease() == []


# ---- timeouts


async def test_a_token_that_nobody_completes_in_time_times_out(stage: Stage, worker: Worker, clock: Clock) -> None:
    token = await create(stage, timeout=HOUR)
    lease = await stage.leased(worker)
    await wait(stage, token_wait(lease, token.waitpoint_id))
    clock.advance(timedelta(minutes=59))
    await stage.tick()
    assert await worker.lease() == []
    clock.advance(timedelta(minutes=2))
    await stage.tick()
    (result,) = (await worker.lease_one()).results
    assert result.error is not None
    assert (result.error.name, result.error.code) == ("WaitTimeoutError", ErrorCode.TOKEN_TIMED_OUT)
    record = await read(stage, token)
    assert record.timeout_at is not None
    assert (record.status, record.output) == (TokenStatus.TIMED_OUT, None)
    assert result.error.message.startswith(f"nobody completed the token before {record.timeout_at:%Y-%m-%dT%H:%M}")
    assert await complete(stage, token) is False
    assert (await read(stage, token)).status is TokenStatus.TIMED_OUT


async def test_a_completion_before_the_timeout_stays(stage: Stage, worker: Worker, clock: Clock) -> None:
    token = await create(stage, timeout=clock.now() + HOUR)
    await complete(stage, token, "1")
    clock.advance(2 * HOUR)
    await stage.tick()
    record = await read(stage, token)
    assert (record.status, record.output, record.error) == (TokenStatus.COMPLETED, "1", None)


async def test_a_timeout_in_the_past_has_come(stage: Stage) -> None:
    token = await create(stage, timeout=datetime(2020, 1, 1, tzinfo=UTC))
    assert (await read(stage, token)).status is TokenStatus.TIMED_OUT
    assert await complete(stage, token) is False


async def test_a_moment_that_comes_is_no_timeout(stage: Stage, worker: Worker, clock: Clock) -> None:
    lease = await stage.leased(worker)
    await wait(stage, keyed_wait(lease))
    clock.advance(2 * HOUR)
    await stage.tick()
    assert (await worker.lease_one()).results == (WaitResult(operation="0"),)


# ---- made by runs


async def test_a_token_made_by_a_run_is_the_same_when_it_is_asked_for_again(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    first = await create(stage, origin=origin(lease, "0", wait=False))
    again = await create(stage, origin=origin(lease, "0", wait=False))
    assert again == first
    assert await stage.count("waitpoints") == 1


async def test_the_journal_tells_which_token_was_made(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    token = await create(stage, origin=origin(lease, "0", wait=False), key=KEY)
    cached = await create(stage, origin=origin(lease, "1", wait=False), key=KEY)
    (page,) = await stage.engine.read_journals([JournalRead(holder=holder(lease))])
    assert not isinstance(page, Stale)
    told = [(entry.kind.value, entry.ref, entry.output, entry.is_cached) for entry in page]
    assert told == [
        ("new_token", token.waitpoint_id, token.secret, False),
        ("new_token", token.waitpoint_id, token.secret, True),
    ]
    assert cached == TokenCreated(waitpoint_id=token.waitpoint_id, secret=token.secret, is_cached=True)


async def test_a_new_attempt_makes_a_new_token_unless_it_has_a_key(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    plain = await create(stage, origin=origin(lease, "0", wait=False))
    keyed = await create(stage, origin=origin(lease, "1", wait=False), key=KEY)
    await worker.fail(lease, retry_in=timedelta())
    await stage.a_moment_passes()
    lease = await worker.lease_one()
    assert (await create(stage, origin=origin(lease, "0", wait=False))).waitpoint_id != plain.waitpoint_id
    assert (await create(stage, origin=origin(lease, "1", wait=False), key=KEY)).waitpoint_id == keyed.waitpoint_id


async def test_a_stale_run_makes_no_token(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.hand_back(lease)
    request = token_request(origin=origin(lease, "0", wait=False), key=KEY)
    assert await stage.engine.create_tokens([request]) == [Stale(run_id=lease.run_id)]
    assert await stage.count("waitpoints") == await stage.count("waitpoint_keys") == 0


async def test_a_request_repeated_after_a_lost_reply_is_answered_alike(stage: Stage) -> None:
    requests = [token_request(), token_request(key=KEY)]
    first = await stage.engine.create_tokens(requests)
    assert await stage.engine.create_tokens(requests) == first
    assert await stage.count("waitpoints") == 2


# ---- idempotency keys


async def test_a_key_gives_the_same_token_also_when_it_is_completed(stage: Stage) -> None:
    first = await create(stage, key=KEY, tags=("a",))
    second = await create(stage, key=KEY, tags=("b",), timeout=HOUR)
    assert second == TokenCreated(waitpoint_id=first.waitpoint_id, secret=first.secret, is_cached=True)
    await complete(stage, first)
    assert (await create(stage, key=KEY)).waitpoint_id == first.waitpoint_id
    record = await read(stage, first)
    assert (record.tags, record.timeout_at, record.idempotency_key, record.idempotency_key_expires_at) == (
        ("a",), None, "order-7", None,
    )  # fmt: skip


async def test_a_key_twice_in_one_call_means_one_token(stage: Stage) -> None:
    answers = await stage.engine.create_tokens([token_request(key=KEY) for _ in range(3)])
    assert [isinstance(answer, TokenCreated) and answer.is_cached for answer in answers] == [False, True, True]
    assert await stage.count("waitpoints") == 1


async def test_an_expired_key_gives_a_new_token(stage: Stage, clock: Clock) -> None:
    key = WaitKey(key="k", ttl=HOUR)
    first = await create(stage, key=key)
    clock.advance(timedelta(minutes=59))
    assert (await create(stage, key=key)).is_cached
    clock.advance(timedelta(minutes=2))
    second = await create(stage, key=key)
    assert not second.is_cached
    assert second.waitpoint_id != first.waitpoint_id
    assert (await create(stage, key=key)).waitpoint_id == second.waitpoint_id
    assert (await read(stage, first)).idempotency_key_expires_at is None
    assert (await read(stage, second)).idempotency_key_expires_at is not None


async def test_waits_with_one_key_wait_for_the_first_ones_date(stage: Stage, worker: Worker, clock: Clock) -> None:
    first, second = [await stage.leased(worker) for _ in range(2)]
    assert await wait(stage, keyed_wait(first, until=HOUR)) == Suspended()
    clock.advance(timedelta(minutes=30))
    assert await wait(stage, keyed_wait(second, until=HOUR)) == Suspended()
    assert await stage.count("waitpoints") == 1
    clock.advance(timedelta(minutes=31))
    await stage.tick()
    resumed = await worker.lease()
    assert {lease.run_id for lease in resumed} == {first.run_id, second.run_id}


async def test_a_wait_whose_key_has_come_already_is_skipped(stage: Stage, worker: Worker, clock: Clock) -> None:
    lease = await stage.leased(worker)
    await wait(stage, keyed_wait(lease))
    clock.advance(2 * HOUR)
    await stage.tick()
    await worker.fail(await worker.lease_one(), retry_in=timedelta())
    await stage.a_moment_passes()
    lease = await worker.lease_one()
    assert (lease.attempt, await wait(stage, keyed_wait(lease))) == (2, WaitResult(operation="0"))
    await worker.succeed(lease)
    assert await wait(stage, keyed_wait(await stage.leased(worker))) == WaitResult(operation="0")


async def test_a_wait_whose_key_has_expired_waits_anew(stage: Stage, worker: Worker, clock: Clock) -> None:
    key = WaitKey(key="k", ttl=timedelta(minutes=10))
    first, second = [await stage.leased(worker) for _ in range(2)]
    await wait(stage, keyed_wait(first, key=key))
    clock.advance(timedelta(minutes=30))
    await wait(stage, keyed_wait(second, key=key))
    clock.advance(timedelta(minutes=31))
    await stage.tick()
    assert [lease.run_id for lease in await worker.lease()] == [first.run_id]


async def test_a_keyed_wait_asked_for_twice_is_one_wait(stage: Stage, worker: Worker, clock: Clock) -> None:
    lease = await stage.leased(worker)
    asked = keyed_wait(lease)
    assert await wait(stage, asked, keyed_wait(lease, "1")) == [Suspended(), Suspended()]
    assert await wait(stage, asked) == Suspended()
    assert (await stage.count("waitpoints"), await stage.count("waits")) == (1, 2)


async def test_tokens_and_moments_share_one_name_space(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await create(stage, key=WaitKey(key="a"))
    answer = await wait(stage, keyed_wait(lease, "0", key=WaitKey(key="a")))
    assert isinstance(answer, Refused)
    assert (answer.status, answer.code) == (409, "key_in_use")
    await wait(stage, keyed_wait(lease, "0", key=WaitKey(key="b")))
    refused, made = await stage.engine.create_tokens([token_request(key=WaitKey(key="b")), token_request()])
    assert isinstance(refused, Refused)
    assert refused.code == "key_in_use"
    assert isinstance(made, TokenCreated)


@pytest.mark.parametrize("key", ["", "x" * 2049, "é" * 1025])
def test_a_key_that_is_empty_or_too_long_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="1 to 2,048 bytes"):
        WaitKey(key=key)


# ---- reading


async def listed(stage: Stage, **query: Any) -> list[WaitpointId]:
    return [record.id for record in await stage.engine.list_tokens(TokenFilter(**query))]


async def test_tokens_are_listed_newest_first_in_pages(stage: Stage, worker: Worker) -> None:
    made = [(await create(stage)).waitpoint_id for _ in range(5)][::-1]
    await wait(stage, keyed_wait(await stage.leased(worker)))
    assert await listed(stage, limit=2) == made[:2]
    assert await listed(stage, limit=2, before=made[1]) == made[2:4]
    assert await listed(stage, limit=2, before=made[3]) == made[4:]


async def test_tokens_are_found_by_what_they_are(stage: Stage, clock: Clock) -> None:
    old = await create(stage, timeout=HOUR, tags=("a", "b"))
    clock.advance(2 * HOUR)
    await stage.tick()
    between = clock.now()
    clock.advance(HOUR)
    done, open_ = await create(stage, tags=("b",), key=KEY), await create(stage, tags=("c",))
    await complete(stage, done, "1")
    a, b, c = old.waitpoint_id, done.waitpoint_id, open_.waitpoint_id
    assert await listed(stage, statuses=(TokenStatus.WAITING,)) == [c]
    assert await listed(stage, statuses=(TokenStatus.TIMED_OUT, TokenStatus.COMPLETED)) == [b, a]
    assert await listed(stage, tags=("a", "c")) == [c, a]
    assert await listed(stage, idempotency_key="order-7") == [b]
    assert (await listed(stage, created_after=between), await listed(stage, created_before=between)) == ([c, b], [a])
    (record,) = await stage.engine.list_tokens(TokenFilter(tags=("b",), statuses=(TokenStatus.COMPLETED,)))
    assert (record.output, record.secret) == (None, done.secret)


async def test_secrets_cannot_be_guessed(stage: Stage) -> None:
    answers = await stage.engine.create_tokens([token_request() for _ in range(10)])
    found = {answer.secret for answer in answers if isinstance(answer, TokenCreated)}
    assert len(found) == 10
    assert all(len(secret) == 64 and int(secret, 16) for secret in found)


# ---- retention


async def test_what_was_completed_long_ago_is_forgotten_but_for_what_a_live_key_stands_for(
    stage: Stage, clock: Clock
) -> None:
    plain, short = await create(stage), await create(stage, key=WaitKey(key="short", ttl=HOUR))
    kept, open_ = await create(stage, key=WaitKey(key="for ever")), await create(stage)
    for token in (plain, short, kept):
        await complete(stage, token)
    clock.advance(timedelta(days=61))
    for _ in range(2):  # the keys go first
        await stage.engine.maintenance.keep_house()
    found = await stage.engine.retrieve_tokens([t.waitpoint_id for t in (plain, short, kept, open_)])
    assert [record is not None for record in found] == [False, False, True, True]
    assert await stage.query("select key from detent.waitpoint_keys") == [("for ever",)]


async def test_a_token_is_json_text_as_it_was_given(stage: Stage, worker: Worker) -> None:
    token = await create(stage)
    output = json.dumps({"text": "a\x00b 😀", "big": 10**40})
    await complete(stage, token, output)
    assert (await read(stage, token)).output == output
