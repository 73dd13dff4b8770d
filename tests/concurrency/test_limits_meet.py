"""Limits change at the moment in which runs come and go."""

from __future__ import annotations

from datetime import timedelta

from detent.engine.backend import EngineBackend
from detent.protocol import ids
from detent.protocol.attempts import Failed
from detent.protocol.flow import Override
from detent.protocol.leases import Lease
from tests.concurrency.meeting import Blockade
from tests.engine.stage import BOOM, ENVIRONMENT, Stage, holder, limit, registration, task


async def test_a_lane_made_while_limits_change_has_the_new_ones(
    stage: Stage, engines: list[EngineBackend], blockade: Blockade
) -> None:
    """The retry makes the lane in which its version goes on with the run, and then waits for the limit it gives back."""
    limits = [limit("db", total=5), limit("gpu", total=1)]
    worker = await stage.worker(task("work", limits=("db",)), limits=limits)
    lease = await stage.leased(worker)
    await blockade.pile_up(
        "select from detent.gates for update",
        [],
        engines[0].complete_attempts([Failed(holder=holder(lease), error=BOOM, retry_in=timedelta(0))]),
        engines[1].register_worker(registration(task("work", limits=("db", "gpu")), limits=limits)),
    )
    await stage.a_moment_passes()
    await stage.trigger()
    assert len(await worker.lease()) == 1


async def test_a_session_that_opens_while_limits_change_leases_by_the_new_ones(
    stage: Stage, engines: list[EngineBackend], blockade: Blockade
) -> None:
    worker = await stage.worker("work")
    lease = await stage.leased(worker)
    await stage.trigger()

    async def open_and_lease() -> list[Lease]:
        return await (await Stage(engines[1], stage.connection).session(worker.version)).lease()

    _, taken = await blockade.pile_up(
        "select from detent.runs where id = %s for update",
        [ids.decode("run", lease.run_id)],
        engines[0].change_limits([Override(ref=ENVIRONMENT, total=1)]),
        open_and_lease(),
    )
    assert taken == []
