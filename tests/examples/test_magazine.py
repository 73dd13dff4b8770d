"""The example project, on a database and a worker, with a clock that is moved to what is due next."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.stage import DEADLINE, POLL, Stage, playing, until
from tests.examples.page import ROOT
from tests.examples.reader import NEVER_RUN
from tests.nursery import Nursery
from tests.pooler import variables

EXAMPLES = ROOT / "examples"
TOLD = """\
article    Waiting: 5 words and 2 pictures {'state': 'published', 'author': 'Ada', 'source': 'mail', 'pictures': 2}
issues     6 letters sent, and built the archive
sign-up    COMPLETED
orders     4 taken, 1 called off; one was refused: the card of Poor@example.com was refused
archive    DELAYED, and once more as archive_pictures
breakfast  At 08:00 every day
"""
# While anything executes, or may at once, the clock stands: a run would miss its ttl.
TO_WHAT_IS_DUE = """
update testing.clock set shift = shift + due.at - detent.now()
from (
  select min(due_at) as at from (
    select due_at from detent.runs union all select due_at from detent.waitpoints where completed_at is null
  ) as each
) as due
where due.at > detent.now() and not exists (
  select from detent.runs
  where status in ('DEQUEUED', 'EXECUTING') or status = 'QUEUED' and (due_at is null or due_at <= detent.now()))
"""
TO_THE_NEXT_SCHEDULE = """
update testing.clock set shift = shift + due.at - detent.now()
from (select min(due_at) as at from detent.schedules) as due
where due.at > detent.now() and not exists (select from detent.runs)
"""


@pytest.fixture
async def stage(nursery: Nursery, fresh_dsn: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with playing(nursery, fresh_dsn, tmp_path) as stage:
        yield stage


async def test_every_task_of_the_magazine_runs_to_its_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETENT_ENCRYPTION_KEY", "00" * 32)
    stage.spawn(["worker", "--runners", "1"], cwd=EXAMPLES)
    await until(stage.sessions, "the worker")
    assert await _office(stage) == TOLD
    await _everything_ends(stage)
    await stage.client.tasks.trigger("count_package", {"name": "json", "files": ["json/tool.py"], "pause": 6})
    await _everything_ends(stage)
    while stage.query(NEVER_RUN) != [("census",)]:  # which the demo takes
        stage.query(TO_THE_NEXT_SCHEDULE)
        await asyncio.sleep(POLL)
    await _everything_ends(stage)

    found = Counter(stage.query("select task_id, status::text from detent.history where status <> 'COMPLETED'"))
    assert found == {("charge", "FAILED"): 1, ("subscribe", "CANCELED"): 1}


async def _office(stage: Stage) -> str:
    """What `office.py` prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        EXAMPLES / "office.py",
        env=os.environ | variables(stage.dsn),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await asyncio.wait_for(process.communicate(), DEADLINE)
    return printed.decode()


async def _everything_ends(stage: Stage) -> None:
    while not stage.is_idle():
        stage.query(TO_WHAT_IS_DUE)
        await asyncio.sleep(POLL)
