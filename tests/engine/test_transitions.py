"""One table of transitions: what Python, the database and the guard of the rows allow is the same."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from detent.engine import lifecycle
from detent.engine.lifecycle import IllegalTransitionError
from detent.protocol.status import FAILED, FINAL, HELD, TRANSITIONS, Event, RunStatus
from detent.protocol.waits import Suspension
from tests.engine.stage import Stage, Worker, holder

STORED = [status for status in RunStatus if status is not RunStatus.PENDING_VERSION]


async def test_the_database_allows_what_the_table_does_and_nothing_else(stage: Stage) -> None:
    allowed = {(before, after) for (before, _), after in TRANSITIONS.items()}
    found = await stage.query(
        "select before::text, after::text from unnest(enum_range(null::detent.run_status)) as before, "
        "unnest(enum_range(null::detent.run_status)) as after where detent.is_legal(before, after)"
    )
    assert set(found) == allowed


async def test_the_database_knows_every_status_that_is_stored(stage: Stage) -> None:
    found = await stage.query("select unnest(enum_range(null::detent.run_status))::text")
    assert [status for (status,) in found] == STORED


async def test_live_runs_and_history_divide_the_statuses_between_them(stage: Stage) -> None:
    """The checks of the two tables, read back from the catalogue."""

    async def listed(table: str) -> set[str]:
        ((text,),) = await stage.query(
            "select pg_get_constraintdef(oid) from pg_constraint "
            "where conrelid = %s::regclass and contype = 'c' and conname like %s",
            f"detent.{table}",
            f"{table}_status_check",
        )
        return {status for status in RunStatus if f"'{status}'" in text}

    assert await listed("history") == FINAL
    assert await listed("runs") == set(STORED) - FINAL


@pytest.mark.parametrize("status", sorted(FINAL))
def test_nothing_happens_to_a_run_that_is_over(status: RunStatus) -> None:
    assert not [event for event in Event if (status, event) in TRANSITIONS]
    with pytest.raises(IllegalTransitionError, match=f"{status} cannot be leased"):
        lifecycle.after(status, Event.LEASED)


@pytest.mark.parametrize("status", [s for s in STORED if s not in FINAL])
def test_a_live_run_can_be_cancelled_and_can_reach_every_end(status: RunStatus) -> None:
    assert TRANSITIONS[status, Event.CANCELLED] is RunStatus.CANCELED
    reached, frontier = {status}, {status}
    while frontier:
        frontier = {after for (before, _), after in TRANSITIONS.items() if before in frontier} - reached
        reached |= frontier
    assert reached >= FINAL


def test_every_event_happens_somewhere_and_every_status_is_reached() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)
    assert set(TRANSITIONS.values()) | {RunStatus.DELAYED} == set(STORED)


def test_the_ends_are_counted_as_they_are_named() -> None:
    assert FAILED < FINAL
    assert not HELD & FINAL
    assert {RunStatus.COMPLETED, RunStatus.CANCELED} == FINAL - FAILED


async def test_a_row_refuses_a_step_that_is_not_in_the_table(stage: Stage, worker: Worker) -> None:
    await stage.trigger()
    with pytest.raises(psycopg.errors.CheckViolation, match="cannot go from QUEUED to EXECUTING"):
        await stage.query("update detent.runs set status = 'EXECUTING', session_id = %s, fence = 1", "0" * 32)


async def test_every_transition_but_expiry_is_made_by_an_operation(stage: Stage) -> None:
    """The engine's own functions are the only ones to change a status; these are the steps they are seen to make."""
    steps = "create table testing.steps (before text, after text)"
    watch = """
        create function testing.watch() returns trigger language plpgsql as $$ begin
          insert into testing.steps values (old.status, new.status); return null; end $$;
        create trigger watch after update of status on detent.runs for each row
        when (old.status <> new.status) execute function testing.watch();"""
    await stage.query(steps)
    await stage.connection.execute(watch.encode())
    try:
        await _live_every_life(stage)
        seen = set(await stage.query("select distinct before, after from testing.steps"))
    finally:
        await stage.connection.execute(b"drop trigger watch on detent.runs; drop function testing.watch")
        await stage.query("drop table testing.steps")
    live = {(b, a) for (b, _), a in TRANSITIONS.items() if a not in FINAL}
    assert seen == live


async def _live_every_life(stage: Stage) -> None:
    worker = await stage.worker()
    await stage.trigger(delay=timedelta(seconds=0.001))
    await stage.query("update testing.clock set shift = '1 hour'")
    await stage.tick()
    lease = await worker.lease_one()  # delay ended, leased
    await worker.hand_back(lease)  # DEQUEUED handed back
    lease = await worker.lease_one()
    await worker.call(lease, "0")  # DEQUEUED waited
    await stage.engine.suspend([Suspension(holder=holder(lease), until=timedelta(0))])
    await stage.tick()  # woken
    await worker.sleep(lease, "1", seconds=1)  # QUEUED waited
    await worker.succeed(await worker.lease_one())
    lease = await worker.lease_one()
    await stage.engine.suspend([Suspension(holder=holder(lease))])
    await stage.query("update testing.clock set shift = '2 hours'")
    await stage.tick()
    lease = await worker.lease_one()
    await worker.start(lease)  # started
    await worker.sleep(lease, "2", seconds=1)  # EXECUTING waited
    await stage.query("update testing.clock set shift = '3 hours'")
    await stage.tick()
    lease = await worker.lease_one()
    await worker.fail(lease, retry_in=timedelta(0))  # DEQUEUED retried
    await stage.a_moment_passes()
    lease = await worker.lease_one()
    await worker.start(lease)
    await worker.hand_back(lease)  # EXECUTING handed back
    lease = await worker.lease_one()
    await worker.start(lease)
    await worker.fail(lease, retry_in=timedelta(0))  # EXECUTING retried
    await stage.a_moment_passes()
    await worker.succeed(await worker.lease_one())
