"""kill -9 of runners, at random moments under load."""

from __future__ import annotations

import random

import pytest

from tests.acceptance.load import under_load
from tests.acceptance.stage import Stage

pytestmark = pytest.mark.acceptance


async def test_every_run_ends_once_and_right_though_runners_are_killed(stage: Stage, rng: random.Random) -> None:
    await stage.start_workers(2)
    async with under_load(stage, rng) as load:
        for moment in load.moments(5):
            await load.reaches(moment)
            await stage.kill_a_runner(rng)
