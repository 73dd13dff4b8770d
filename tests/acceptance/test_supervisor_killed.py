"""kill -9 of supervisors, alone and with their runners, at random moments under load."""

from __future__ import annotations

import random

import pytest

from tests.acceptance.load import under_load
from tests.acceptance.stage import Stage, until

pytestmark = pytest.mark.acceptance


async def test_every_run_ends_once_and_right_though_supervisors_are_killed(stage: Stage, rng: random.Random) -> None:
    workers = await stage.start_workers(2)
    async with under_load(stage, rng) as load:
        for moment in load.moments(2):
            await load.reaches(moment)
            victim = workers.pop(rng.randrange(2))
            victim.kill()
            workers.append(await stage.start_worker())


async def test_every_run_ends_once_and_right_though_everything_is_killed(stage: Stage, rng: random.Random) -> None:
    workers = await stage.start_workers(2)
    async with under_load(stage, rng) as load:
        for moment in load.moments(2):
            await load.reaches(moment)
            for worker in workers:
                worker.kill_all()
            workers = await stage.start_workers(2)


async def test_runners_end_with_their_supervisor(stage: Stage) -> None:
    worker = await stage.start_worker()
    runners = worker.runners()
    worker.kill()
    await until(lambda: not any(runner.is_running() for runner in runners), "the end of the orphans", 5)
