from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

from detent.errors import ApiConnectionError
from detent.protocol import ids
from detent.protocol.execution import Isolation
from detent.protocol.leases import Lease, LeaseRequest
from detent.worker.leasing import Leasing
from detent.worker.room import Room


class Leased:
    def __init__(self, isolation: Isolation) -> None:
        self.isolation = isolation


class Scene:
    """Lease calls are answered by the test, one after the other."""

    def __init__(self, **slots: int) -> None:
        self.room = Room({Isolation(kind): count for kind, count in slots.items()})
        self.asked: asyncio.Queue[LeaseRequest] = asyncio.Queue()
        self.answers: asyncio.Queue[Sequence[Isolation] | Exception] = asyncio.Queue()
        self.announced: list[int] = []
        self.leasing = Leasing(self._lease, self.room, announce=self._announce, receive=self._receive)

    @asynccontextmanager
    async def playing(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.leasing.run())
        self.leasing.open(ids.new_session_id())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def answer(self, leased: Sequence[Isolation] | Exception) -> dict[Isolation, int]:
        """Answer the next call; return the room that it named."""
        request = await asyncio.wait_for(self.asked.get(), 5)
        self.answers.put_nowait(leased)
        for _ in range(5):
            await asyncio.sleep(0)
        return request.room

    @property
    def is_asking(self) -> bool:
        return not self.asked.empty()

    def give(self, kind: Isolation, count: int) -> None:
        for _ in range(count):
            self.room.give(kind)
            self.leasing.has_room(kind)

    async def _announce(self, fence: int) -> None:
        self.announced.append(fence)

    async def _lease(self, request: LeaseRequest) -> Sequence[Lease]:
        assert request.fence in self.announced
        self.asked.put_nowait(request)
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return cast("Sequence[Lease]", [Leased(kind) for kind in answer])

    def _receive(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            self.room.take(lease.isolation)


ASYNC, THREAD = Isolation.ASYNC, Isolation.THREAD


async def test_a_call_that_came_back_full_is_followed_by_another() -> None:
    scene = Scene(**{"async": 4})
    async with scene.playing():
        assert await scene.answer([ASYNC, ASYNC]) == {ASYNC: 2}
        assert scene.is_asking


async def test_a_call_that_came_back_empty_is_followed_by_none_until_something_happens() -> None:
    scene = Scene(**{"async": 4})
    async with scene.playing():
        await scene.answer([])
        assert not scene.is_asking
        scene.leasing.wake()
        assert await scene.answer([]) == {ASYNC: 2}


async def test_room_of_one_kind_does_not_hide_that_there_may_be_more_of_another() -> None:
    scene = Scene(**{"async": 2, "thread": 2})
    async with scene.playing():
        await scene.answer([ASYNC])
        await scene.answer([ASYNC])
        assert await scene.answer([]) == {THREAD: 1}
        scene.give(ASYNC, 2)
        assert ASYNC in await scene.answer([])


async def test_a_run_that_ends_brings_no_call_when_nothing_is_known_to_be_ready() -> None:
    scene = Scene(**{"async": 4})
    async with scene.playing():
        await scene.answer([ASYNC])
        scene.give(ASYNC, 1)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not scene.is_asking


async def test_a_wake_up_during_a_call_leads_to_another_call() -> None:
    scene = Scene(**{"async": 4})
    async with scene.playing():
        request = await scene.asked.get()
        scene.leasing.wake()
        scene.answers.put_nowait([])
        assert (await scene.asked.get()).fence != request.fence


async def test_a_reply_that_was_lost_is_not_counted_as_in_flight() -> None:
    scene = Scene(**{"async": 4})
    async with scene.playing():
        await scene.answer(ApiConnectionError("away"))
        assert scene.leasing.in_flight == set()


async def test_after_the_end_nothing_is_asked_for() -> None:
    scene = Scene(**{"async": 4})
    async with scene.playing():
        scene.leasing.end()
        scene.leasing.wake()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not scene.is_asking
