"""Very many keys, one of them with very much: nobody waits for the backlog of another. The large sizes are in `benchmarks/`."""

from __future__ import annotations

import pytest

from tests.engine.stage import Stage, limit, request, task

KEYS = 2_000
BACKLOG = 2
OF_THE_GREAT_ONE = 4_000
CHUNK = 1_000


async def fill(stage: Stage) -> None:
    """The great one came first, and has more than all the others together."""
    keys = ["great"] * OF_THE_GREAT_ONE + [f"small {i}" for _ in range(BACKLOG) for i in range(KEYS)]
    for first in range(0, len(keys), CHUNK):
        await stage.engine.trigger([request(concurrency_key=key) for key in keys[first : first + CHUNK]])


@pytest.mark.parametrize(
    ("bounds", "room"),
    [({}, 250), ({"per_key": 1}, 250), ({"total": 250}, 1000)],
    ids=["a worker short of room", "one at a time for each", "a limit for all"],
)
async def test_each_of_many_keys_starts_once_before_any_starts_twice(
    stage: Stage, bounds: dict[str, int], room: int
) -> None:
    worker = await stage.worker(task("work", limits=("api",)), limits=[limit("api", **bounds)])
    await fill(stage)
    order: list[str | None] = []
    while len(order) < KEYS + 1:
        leases = await worker.lease(**{"async": room})
        assert leases != []
        order += [lease.concurrency_key for lease in leases]
        assert len(set(order)) == min(len(order), KEYS + 1)
        await worker.succeed(*leases)
