"""Connections cut by an administrator, whatever they are in the midst of: after a commit and before its answer, too."""

from __future__ import annotations

import random

import pytest

from tests.acceptance.load import under_load
from tests.acceptance.stage import Stage

pytestmark = pytest.mark.acceptance

CUT = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and application_name = 'detent' and random() < 0.5
"""


async def test_every_run_ends_once_and_right_though_connections_are_cut(stage: Stage, rng: random.Random) -> None:
    await stage.start_workers(2)
    async with under_load(stage, rng) as load:
        for moment in load.moments(50):
            await load.reaches(moment)
            stage.query(CUT)
