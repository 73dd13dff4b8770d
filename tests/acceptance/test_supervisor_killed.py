"""kill -9 of supervisors, alone and with their runners, at random moments under load."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from contextlib import suppress

import psutil
import pytest

from tests.acceptance.load import under_load
from tests.acceptance.stage import PROJECT, Stage, until
from tests.nursery import PATH
from tests.pooler import variables

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
    # It starts from nothing, as a user's does, for here it matters whose children they are.
    arguments = ["-m", "detent", "worker", str(PROJECT / "load.py"), "--runners", "2"]
    environment = os.environ | variables(stage.dsn) | {"PYTHONPATH": PATH}
    worker = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=stage.folder, env=environment)
    try:
        await until(lambda: len(stage.sessions()) == 2 or worker.returncode is not None, "the runners")
        runners = psutil.Process(worker.pid).children()
    finally:
        with suppress(ProcessLookupError):
            worker.kill()
        await worker.wait()
    await until(lambda: not any(runner.is_running() for runner in runners), "the end of the orphans", 5)
    assert len(runners) == 2
