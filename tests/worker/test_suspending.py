"""A run is suspended by a call to the database, and what happens while that is under way counts all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import pytest

from detent import task, wait
from detent.engine.backend import EngineBackend
from detent.errors import InternalServerError
from detent.protocol import ids
from detent.protocol.fence import Holder, Stale
from detent.protocol.tokens import TokenCompletion, TokenRequest
from detent.protocol.waits import Delivery, Pending, Suspended, Suspension
from detent.worker import standing as standing_module
from detent.worker.attempt import Attempt
from detent.worker.standing import Standing
from detent.worker.telling import EventKind
from tests.worker.conftest import StartRig

Answers = list[Suspended | Pending | Stale]

REFUSAL = InternalServerError("suspend failed in the database: no more of it", code="database")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_module, "AGAIN_AFTER", 0.01)


@pytest.mark.parametrize("refusals", [0, 1])
async def test_code_that_ends_while_its_run_is_being_suspended_has_ended(
    start_rig: StartRig, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    """Also when the database refuses at first to take the run back."""
    suspended, suspend = asyncio.Event(), EngineBackend.suspend
    refused: list[object] = []

    async def answer_late(backend: EngineBackend, requests: Sequence[Suspension]) -> Answers:
        if suspended.is_set() and len(refused) < refusals:
            refused.append(requests)
            raise REFUSAL
        answers = await suspend(backend, requests)
        suspended.set()
        for _ in range(20):
            await asyncio.sleep(0)
        return answers

    monkeypatch.setattr(EngineBackend, "suspend", answer_late)

    @task
    async def gives_up(token: str) -> str:
        waiting = asyncio.ensure_future(wait.for_token(token))
        await suspended.wait()
        waiting.cancel()
        return "on"

    async with start_rig() as rig:
        token = ids.new_waitpoint_id()
        await rig.backend.create_tokens([TokenRequest(waitpoint_id=token)])
        outcome = await rig.run("gives_up", token)
    assert (outcome.output, len(refused)) == ('"on"', refusals)


async def test_a_run_that_the_database_refuses_to_suspend_is_suspended_later(
    start_rig: StartRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspend, refused = EngineBackend.suspend, list[object]()

    async def refuse_once(backend: EngineBackend, requests: Sequence[Suspension]) -> Answers:
        if not refused:
            refused.append(requests)
            raise REFUSAL
        return await suspend(backend, requests)

    monkeypatch.setattr(EngineBackend, "suspend", refuse_once)

    @task
    async def waits() -> str:
        await asyncio.gather(wait.for_(hours=1), wait.for_(hours=2))
        return "on"

    async with start_rig() as rig:
        run_id = await rig.trigger("waits")
        await rig.saw(run_id, EventKind.WAITING)
        rig.clock.advance(timedelta(hours=3))
        outcome = await rig.end_of(run_id)
    assert (outcome.output, len(refused)) == ('"on"', 1)


async def test_what_the_database_refuses_to_hand_out_is_fetched_later(
    start_rig: StartRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    token = ids.new_waitpoint_id()
    collect, start_suspending = EngineBackend.collect, Standing._suspend
    is_completed, refused = asyncio.Event(), list[object]()

    async def refuse_once(backend: EngineBackend, holders: Sequence[Holder]) -> list[Delivery]:
        if is_completed.is_set() and not refused:
            refused.append(holders)
            raise REFUSAL
        return await collect(backend, holders)

    async def collect_first(standing: Standing, attempt: Attempt, moves: int) -> None:
        is_completed.set()
        await rig.backend.complete_tokens([TokenCompletion(waitpoint_id=token, output="5")])
        standing._has_news = True
        await standing._collect_all()
        await start_suspending(standing, attempt, moves)

    monkeypatch.setattr(EngineBackend, "collect", refuse_once)
    monkeypatch.setattr(Standing, "_suspend", collect_first)

    @task
    async def waits() -> int:
        other = asyncio.create_task(asyncio.Event().wait())
        number = await wait.for_token(token, output=int).unwrap()
        other.cancel()
        return number

    async with start_rig() as rig:
        await rig.backend.create_tokens([TokenRequest(waitpoint_id=token)])
        outcome = await rig.run("waits")
    assert (outcome.output, len(refused)) == ("5", 1)
    assert "could not be fetched, trying again" in caplog.text


async def test_what_was_collected_just_before_moves_the_code_on(start_rig: StartRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told as delivered, it leaves what was given up before as all that the database waits for: that may never come."""
    never, soon = ids.new_waitpoint_id(), ids.new_waitpoint_id()
    start_suspending = Standing._suspend

    async def collect_first(standing: Standing, attempt: Attempt, moves: int) -> None:
        await rig.backend.complete_tokens([TokenCompletion(waitpoint_id=soon, output="1")])
        standing._has_news = True
        await standing._collect_all()
        await start_suspending(standing, attempt, moves)

    monkeypatch.setattr(Standing, "_suspend", collect_first)

    @task
    async def goes_on() -> str:
        # With something else to do it keeps its slot while it waits, until nothing has moved for a while.
        other = asyncio.create_task(asyncio.Event().wait())
        with suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await wait.for_token(never)
        await wait.for_token(soon)
        other.cancel()
        return "on"

    async with start_rig() as rig:
        await rig.backend.create_tokens([TokenRequest(waitpoint_id=token) for token in (never, soon)])
        outcome = await rig.run("goes_on")
    assert outcome.output == '"on"'
