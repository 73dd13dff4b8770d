"""Tokens are completed once, and keys stand for one thing, whoever comes at the same moment."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from detent.engine.backend import EngineBackend
from detent.protocol.idempotency import WaitKey
from detent.protocol.ids import WaitpointId
from detent.protocol.status import TokenStatus
from detent.protocol.tokens import TokenCompletion, TokenCreated, TokenRequest
from detent.protocol.waits import Suspended, WaitResult
from tests.concurrency.meeting import Blockade, race
from tests.concurrency.test_waits_meet_ends import leased, statuses
from tests.database import Clock
from tests.engine.stage import Stage, Worker
from tests.engine.test_tokens import keyed_wait, token_request, token_wait

TIMES = 100


async def made(stage: Stage, count: int, **options: Any) -> list[WaitpointId]:
    answers = await stage.engine.create_tokens([token_request(**options) for _ in range(count)])
    return [answer.waitpoint_id for answer in answers if isinstance(answer, TokenCreated)]


def completion(token_id: WaitpointId, output: str = "1") -> TokenCompletion:
    return TokenCompletion(waitpoint_id=token_id, output=output)


async def test_a_token_is_completed_while_a_run_begins_to_wait_for_it(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    parents = await leased(stage, worker, TIMES)
    for i, (parent, token_id) in enumerate(zip(parents, await made(stage, TIMES), strict=True)):
        wait, complete = (
            engines[0].wait_for([token_wait(parent, token_id)]),
            engines[1].complete_tokens([completion(token_id)]),
        )
        answers = await race(*((wait, complete) if i % 2 else (complete, wait)))
        (answer,), (is_first,) = answers if i % 2 else reversed(answers)
        assert is_first
        assert answer in (Suspended(), WaitResult(operation="0", output="1"))
    assert "WAITING" not in await statuses(stage, parents)
    resumed = await worker.lease(**{"async": TIMES})
    assert {result.output for lease in resumed for result in lease.results} <= {"1"}


async def test_two_complete_a_token_and_one_is_first(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    parents = await leased(stage, worker, TIMES)
    token_ids = await made(stage, TIMES)
    await stage.engine.wait_for([token_wait(*pair) for pair in zip(parents, token_ids, strict=True)])
    firsts: dict[WaitpointId, str] = {}
    for token_id in token_ids:
        calls = [engine.complete_tokens([completion(token_id, str(i))]) for i, engine in enumerate(engines)]
        answers = [is_first for (is_first,) in await race(*calls)]
        assert sorted(answers) == [False, False, False, True]
        firsts[token_id] = str(answers.index(True))
    told = {record.id: record.output for record in await stage.engine.retrieve_tokens(token_ids) if record}
    assert told == firsts
    assert len(await worker.lease(**{"async": 2 * TIMES})) == TIMES


async def test_a_token_times_out_or_is_completed_but_not_both(
    stage: Stage, worker: Worker, engines: list[EngineBackend], clock: Clock
) -> None:
    parents = await leased(stage, worker, TIMES)
    token_ids = await made(stage, TIMES, timeout=timedelta(hours=1))
    await stage.engine.wait_for([token_wait(*pair) for pair in zip(parents, token_ids, strict=True)])
    clock.advance(timedelta(hours=2))
    completed: set[WaitpointId] = set()
    chunks = [token_ids[i : i + 5] for i in range(0, TIMES, 5)]
    answers = await race(
        *(
            engines[i % 3].complete_tokens([completion(token_id) for token_id in chunk])
            for i, chunk in enumerate(chunks)
        ),
        engines[3].maintenance.tick(),
    )
    for chunk, firsts in zip(chunks, answers, strict=False):
        completed |= {token_id for token_id, is_first in zip(chunk, firsts, strict=True) if is_first}
    await stage.tick()
    records = [record for record in await stage.engine.retrieve_tokens(token_ids) if record]
    assert {record.id for record in records if record.status is TokenStatus.COMPLETED} == completed
    assert {record.id for record in records if record.status is TokenStatus.TIMED_OUT} == set(token_ids) - completed
    resumed = await worker.lease(**{"async": TIMES})
    assert len(resumed) == TIMES
    assert sum(result.error is None for lease in resumed for result in lease.results) == len(completed)


@pytest.mark.parametrize("is_first", [True, False])
async def test_the_timeout_and_a_completion_that_stand_at_the_same_token(
    stage: Stage, worker: Worker, engines: list[EngineBackend], blockade: Blockade, clock: Clock, is_first: bool
) -> None:
    """A tick passes over a token that somebody has locked; who comes after a tick is late."""
    (parent,) = await leased(stage, worker, 1)
    (token_id,) = await made(stage, 1, timeout=timedelta(hours=1))
    await stage.engine.wait_for([token_wait(parent, token_id)])
    clock.advance(timedelta(hours=2))
    if is_first:
        await blockade.pile_up(
            "select from detent.waitpoints for update",
            [],
            engines[0].complete_tokens([completion(token_id)]),
            stage.tick(),
        )
    else:
        # The tick has marked the token, and stands at the run that it is about to wake.
        await blockade.pile_up(
            "select from detent.runs for update",
            [],
            engines[1].maintenance.tick(),
            engines[0].complete_tokens([completion(token_id)]),
        )
    (record,) = await stage.engine.retrieve_tokens([token_id])
    assert record is not None
    assert record.status is (TokenStatus.COMPLETED if is_first else TokenStatus.TIMED_OUT)
    (resumed,) = await worker.lease()
    assert len(resumed.results) == 1


async def test_one_key_is_one_token_for_all_who_come_at_once(stage: Stage, engines: list[EngineBackend]) -> None:
    for i in range(TIMES):
        calls = [engine.create_tokens([token_request(key=WaitKey(key=f"k{i}"))]) for engine in engines]
        created = [answer for (answer,) in await race(*calls) if isinstance(answer, TokenCreated)]
        assert len({answer.waitpoint_id for answer in created}) == 1
        assert sorted(answer.is_cached for answer in created) == [False, True, True, True]
        assert len({answer.secret for answer in created}) == 1
    assert await stage.count("waitpoints") == TIMES


async def test_an_expired_key_is_renewed_by_one_of_all_who_come_at_once(
    stage: Stage, engines: list[EngineBackend], clock: Clock
) -> None:
    keys = [WaitKey(key=f"k{i}", ttl=timedelta(hours=1)) for i in range(20)]
    await stage.engine.create_tokens([token_request(key=key) for key in keys])
    clock.advance(timedelta(hours=2))
    for key in keys:
        created = [answer for (answer,) in await race(*(e.create_tokens([token_request(key=key)]) for e in engines))]
        assert sorted(answer.is_cached for answer in created) == [False, True, True, True]
        assert len({answer.waitpoint_id for answer in created}) == 1
    assert await stage.count("waitpoints") == 2 * len(keys)


async def test_many_keys_at_once_in_any_order_do_not_block_each_other(
    stage: Stage, engines: list[EngineBackend]
) -> None:
    keys = [WaitKey(key=f"k{i}") for i in range(50)]
    for _ in range(5):
        requests = [
            [token_request(key=key) for key in order] for order in (keys, keys[::-1], keys[25:] + keys[:25], keys)
        ]
        answers = await race(*(engine.create_tokens(each) for engine, each in zip(engines, requests, strict=True)))
        found = [
            {key: a.waitpoint_id for key, a in zip(_keys(r), each, strict=True)}
            for r, each in zip(requests, answers, strict=True)
        ]
        assert all(each == found[0] for each in found)
    assert await stage.count("waitpoints") == len(keys)


def _keys(requests: list[TokenRequest]) -> list[str]:
    return [request.key.key for request in requests if request.key]


async def test_one_key_is_one_moment_for_all_who_wait_at_once(
    stage: Stage, worker: Worker, engines: list[EngineBackend], clock: Clock
) -> None:
    parents = await leased(stage, worker, 4 * 25)
    for i in range(25):
        some = parents[4 * i : 4 * i + 4]
        waits = [
            keyed_wait(parent, until=timedelta(minutes=n + 1), key=WaitKey(key=f"k{i}"))
            for n, parent in enumerate(some)
        ]
        answers = await race(*(engine.wait_for([wait]) for engine, wait in zip(engines, waits, strict=True)))
        assert answers == [[Suspended()]] * 4
    assert await stage.count("waitpoints") == 25
    clock.advance(timedelta(minutes=5))
    await stage.tick()
    assert len(await worker.lease(**{"async": 200})) == len(parents)


async def test_a_token_and_a_moment_come_for_one_key_at_once(
    stage: Stage, worker: Worker, engines: list[EngineBackend]
) -> None:
    parents = await leased(stage, worker, 50)
    for i, parent in enumerate(parents):
        key = WaitKey(key=f"k{i}")
        (token,), (moment,) = await race(
            engines[0].create_tokens([token_request(key=key)]), engines[1].wait_for([keyed_wait(parent, key=key)])
        )
        assert isinstance(token, TokenCreated) is not (moment == Suspended())
    assert await stage.count("waitpoints") == len(parents)
