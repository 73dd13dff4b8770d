"""kill -9 of PostgreSQL, at random moments under load."""

from __future__ import annotations

import random

import pytest

from tests.acceptance.load import under_load
from tests.acceptance.power import OwnServer
from tests.acceptance.stage import Stage

pytestmark = pytest.mark.acceptance


async def test_every_run_ends_once_and_right_though_postgres_is_killed(
    power: OwnServer, powered_stage: Stage, rng: random.Random
) -> None:
    await powered_stage.start_workers(2)
    async with under_load(powered_stage, rng) as load:
        for moment in load.moments(2):
            await load.reaches(moment)
            power.kill()
            power.start()
