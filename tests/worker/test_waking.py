"""Which runners hear of a wake-up, without processes and without a database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from detent.protocol import ids
from detent.protocol.backend import WorkerBackend
from detent.protocol.wake_ups import Wake
from detent.worker.child import Child
from detent.worker.children import Children
from detent.worker.control import Cancelled, Work
from detent.worker.vigil import Vigil
from detent.worker.waking import MANY, Waking
from tests.worker.stand_in import StandIn


class Scene:
    """Two runners with room, and who else is added."""

    def __init__(self) -> None:
        self.children = Children()
        self.vigil = Watching()
        self.waking = Waking(cast("WorkerBackend", None), self.children, cast("Vigil", self.vigil))
        self.runners = [StandIn(pid=pid).join(self.children) for pid in (1, 2)]

    def woken(self) -> list[int]:
        return [runner.sent.count(Work()) for runner in self.runners]


class Watching:
    def __init__(self) -> None:
        self.stuck: set[int] = set()
        self.cancelled: list[str] = []

    def is_stuck(self, child: Child) -> bool:
        return child.pid in self.stuck

    def cancel(self, now: float, run_ids: Sequence[str]) -> None:
        self.cancelled += run_ids


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_a_few_ready_runs_wake_one_runner_in_its_turn(scene: Scene) -> None:
    for _ in range(4):
        scene.waking.pass_on(Wake(ready=1))
    assert scene.woken() == [2, 2]


async def test_many_ready_runs_wake_every_runner_with_room(scene: Scene) -> None:
    scene.runners.append(StandIn(has_room=False).join(scene.children))
    scene.runners.append(StandIn(is_leaving=True).join(scene.children))
    scene.waking.pass_on(Wake(ready=MANY))
    assert scene.woken() == [1, 1, 0, 0]


async def test_a_runner_that_is_stuck_is_passed_over(scene: Scene) -> None:
    scene.vigil.stuck.add(1)
    for _ in range(2):
        scene.waking.pass_on(Wake(ready=1))
    assert scene.woken() == [0, 2]


async def test_processes_for_one_run_are_woken_after_the_runners(scene: Scene) -> None:
    solo = StandIn(is_solo=True).join(scene.children)
    for _ in range(2):
        scene.waking.pass_on(Wake(ready=1))
    assert (scene.woken(), solo.sent) == ([1, 1], [])
    async with asyncio.timeout(5):
        await solo.heard.wait()
    assert solo.sent == [Work()]


async def test_only_the_session_whose_run_is_ready_again_is_woken(scene: Scene) -> None:
    scene.waking.pass_on(Wake(resumed=(scene.runners[1].session,)))
    assert scene.woken() == [0, 1]


async def test_every_runner_hears_what_was_cancelled_even_one_that_drains(scene: Scene) -> None:
    scene.runners[0].is_leaving = True
    run_ids = (ids.new_run_id(),)
    scene.waking.pass_on(Wake(cancelled=run_ids))
    assert [runner.sent for runner in scene.runners] == [[Cancelled(run_ids=run_ids)]] * 2
    assert scene.vigil.cancelled == list(run_ids)
