"""How many processes for single runs there are, without any."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

import pytest

from detent.protocol.sessions import SessionEnded
from detent.worker.children import Children
from detent.worker.solos import Solos
from tests.worker.stand_in import StandIn


class House:
    def __init__(self, *, limit: int = 10) -> None:
        self.children = Children()
        self.limit = limit
        self.failures: list[OSError] = []
        self.started = asyncio.Event()
        self.tasks: list[asyncio.Future[None]] = []
        self.solos = Solos(self.children, self._start, limit=lambda: self.limit, spawn=self._spawn)

    async def _start(self, *, is_spare: bool) -> None:
        if self.failures:
            raise self.failures.pop()
        StandIn(is_solo=True, is_spare=is_spare, is_up=False).join(self.children)
        await asyncio.sleep(0)
        self.started.set()

    def _spawn(self, work: Awaitable[None]) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    def spares(self) -> list[bool]:
        return [child.is_spare for child in self.children.solos]


async def test_each_run_that_must_be_alone_gets_a_process_unless_one_has_room() -> None:
    house = House()
    StandIn(is_solo=True).join(house.children)
    StandIn(is_solo=True, has_room=False).join(house.children)
    house.solos.waiting = 3
    await house.solos.staff()
    assert len(house.children.solos) == 2 + 2


async def test_one_process_is_kept_ready_where_tasks_always_want_one() -> None:
    house = House()
    runner = StandIn(has_process_tasks=True).join(house.children)
    await house.solos.staff()
    await house.solos.staff()
    assert house.spares() == [True]
    (spare,) = house.children.solos
    spare.has_room = False
    await house.solos.staff()
    assert house.spares() == [True, True]
    spare.is_leaving = True
    runner.generation = -1
    house.children.solos[0].has_room = False
    await house.solos.staff()
    assert house.spares() == [True], "code that is not served any more wants no spare"


async def test_processes_stay_within_their_limit_however_many_start_them() -> None:
    house = House(limit=2)
    house.solos.waiting = 9
    await asyncio.gather(*(house.solos.staff() for _ in range(4)))
    assert len(house.children.solos) == 2


async def test_a_process_that_cannot_be_started_is_left_to_the_next_look(caplog: pytest.LogCaptureFixture) -> None:
    house = House()
    house.failures.append(BlockingIOError(11, "no more processes"))
    house.solos.waiting = 1
    with caplog.at_level(logging.ERROR, "detent.worker"):
        await house.solos.staff()
    assert "cannot be started; trying again" in caplog.text
    await house.solos.staff()
    assert len(house.children.solos) == 1


async def test_a_run_that_may_start_alone_soon_finds_a_process_then() -> None:
    house = House()
    house.solos.expect(SessionEnded(returned=2, alone=(0.0, 3600.0)))
    async with asyncio.timeout(5):
        await house.started.wait()
    await asyncio.gather(*house.tasks)
    assert len(house.children.solos) == 1
    house.children.solos[0].has_room = False
    house.solos.take_busy()
    await asyncio.gather(*house.tasks)
    assert (house.solos.waiting, len(house.children.solos)) == (0, 1)
