"""One idempotency key, triggered by many at once, over connections that are cut."""

from __future__ import annotations

import asyncio

import pytest

from tests.acceptance.stage import Stage
from tests.acceptance.test_connections_cut import CUT

pytestmark = pytest.mark.acceptance

KEYS, TIMES = 100, 10


async def test_a_key_makes_one_run_however_often_it_is_triggered(stage: Stage) -> None:
    await stage.start_workers(2, "many.py")
    triggers = [
        asyncio.create_task(stage.client.tasks.trigger("tiny", key, idempotency_key=f"key {key}"))
        for _ in range(TIMES)
        for key in range(KEYS)
    ]
    while not all(trigger.done() for trigger in triggers):
        stage.query(CUT)
        await asyncio.wait(triggers, timeout=0.2)
    await stage.all_over(KEYS)
    made = {trigger.result().id for trigger in triggers}
    assert len(made) == KEYS == stage.one("select count(*) from detent.history")
    assert set(dict(stage.outcomes()).keys()) == made
    await stage.check_nothing_left()
