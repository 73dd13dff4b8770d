"""Log lines of runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from detent.protocol.leases import Lease
from detent.protocol.logs import LogLine, StoredLog
from tests.engine.stage import Stage, Worker, holder

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def line(lease: Lease, number: int, message: str = "hello", *, fields: str | None = None) -> LogLine:
    at = NOON + timedelta(seconds=number)
    return LogLine(
        holder=holder(lease),
        attempt=lease.attempt,
        place="main/0",
        number=number,
        at=at,
        level="info",
        message=message,
        fields=fields,
    )


async def test_lines_are_read_in_order_with_their_fields(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await stage.engine.append_logs([line(lease, 1, "second", fields='{"n": 1}'), line(lease, 0, "first")])
    assert await stage.engine.read_logs(lease.run_id) == [
        StoredLog(attempt=1, at=NOON, level="info", message="first", fields=None),
        StoredLog(attempt=1, at=NOON + timedelta(seconds=1), level="info", message="second", fields='{"n": 1}'),
    ]


async def test_a_line_sent_twice_is_stored_once(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    for _ in range(2):
        await stage.engine.append_logs([line(lease, 0), line(lease, 1)])
    assert len(await stage.engine.read_logs(lease.run_id)) == 2


async def test_a_line_that_a_replay_writes_again_is_read_once(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    first, other_place = line(lease, 0, "first"), replace(line(lease, 0, "later"), place="main/1")
    await stage.engine.append_logs([first, replace(other_place, at=NOON + timedelta(seconds=1))])
    await stage.engine.append_logs([replace(first, at=NOON + timedelta(seconds=2), message="first again")])
    assert [log.message for log in await stage.engine.read_logs(lease.run_id)] == ["first", "later"]


async def test_lines_of_stale_runs_are_dropped_beside_the_good(stage: Stage, worker: Worker) -> None:
    stale = await stage.leased(worker)
    await worker.hand_back(stale)
    current = await worker.lease_one()
    await stage.engine.append_logs([line(stale, 0, "old"), line(current, 0, "new")])
    assert [log.message for log in await stage.engine.read_logs(current.run_id)] == ["new"]


async def test_logs_outlive_their_run_and_its_attempts(stage: Stage, worker: Worker) -> None:
    first = await stage.leased(worker)
    await stage.engine.append_logs([line(first, 0, "one")])
    await worker.fail(first, retry_in=timedelta(0))
    await stage.a_moment_passes()
    second = await worker.lease_one()
    await stage.engine.append_logs([line(second, 0, "two")])
    await worker.succeed(second)
    assert [(log.attempt, log.message) for log in await stage.engine.read_logs(first.run_id)] == [
        (1, "one"),
        (2, "two"),
    ]


async def test_logs_are_read_in_pages(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await stage.engine.append_logs([line(lease, i) for i in range(25)])
    pages = [await stage.engine.read_logs(lease.run_id, after=after, limit=10) for after in (-1, 9, 19, 24)]
    assert [[(log.at - NOON).seconds for log in page] for page in pages] == [
        list(range(10)),
        list(range(10, 20)),
        list(range(20, 25)),
        [],
    ]


async def test_what_postgresql_cannot_store_is_stripped_and_costs_no_other_line(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    lines = [line(lease, 0, "a\x00b"), line(lease, 1, "lone \ud800"), line(lease, 2, fields='{"k": "a\x00\\u0000"}')]
    await stage.engine.append_logs([*lines, line(lease, 3, "good")])
    assert [log.message for log in await stage.engine.read_logs(lease.run_id)] == ["ab", "lone ?", "hello", "good"]


async def test_no_lines_are_no_error(stage: Stage) -> None:
    await stage.engine.append_logs([])
