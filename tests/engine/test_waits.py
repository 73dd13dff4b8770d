"""Runs that wait, for a moment or for each other."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import AsyncConnection

from detent.protocol import ids
from detent.protocol.children import ChildTriggered
from detent.protocol.fence import Stale
from detent.protocol.idempotency import Idempotency
from detent.protocol.journal import JournalRead, Recorded, StepRecord
from detent.protocol.leases import Lease
from detent.protocol.operations import OperationKind, Stamp
from detent.protocol.refusal import Refused
from detent.protocol.runs import RunOutcome
from detent.protocol.status import RunStatus
from detent.protocol.waits import Pending, Suspended, Suspension, TimeWait, TokenWait, WaitResult
from detent.protocol.wake_ups import Wake
from tests.database import Clock
from tests.engine.stage import BOOM, Stage, Worker, child, holder, journal_of, origin, time_wait

KEY = Idempotency(key="s" * 64, user_key="shared", scope="global")


async def test_a_wait_for_a_time_suspends_and_resumes_in_the_same_attempt(
    stage: Stage, worker: Worker, clock: Clock
) -> None:
    lease = await stage.leased(worker, payload='{"big": 1}')
    await worker.start(lease)
    assert await worker.sleep(lease, "0", days=30) == Suspended()
    run = await stage.run(lease.run_id)
    assert (run.status, run.waits) == (RunStatus.WAITING, 1)
    clock.advance(timedelta(days=29))
    await stage.tick()
    assert await worker.lease() == []
    clock.advance(timedelta(days=1, seconds=1))
    await stage.tick()
    resumed = await worker.lease_one()
    assert (resumed.run_id, resumed.attempt, resumed.is_resumed, resumed.payload) == (lease.run_id, 1, True, None)
    assert resumed.results == (WaitResult(operation="0"),)
    assert resumed.fence != lease.fence
    assert resumed.has_journal
    await worker.succeed(resumed)


async def test_a_moment_that_has_passed_suspends_nobody(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    past = TimeWait(
        origin=origin(lease, "0"), until=datetime(2020, 1, 1, tzinfo=UTC), waitpoint_id=ids.new_waitpoint_id()
    )
    assert await stage.engine.wait_for([past]) == [WaitResult(operation="0")]
    assert await worker.sleep(lease, "1", seconds=0) == WaitResult(operation="1")
    assert await stage.status(lease.run_id) is RunStatus.DEQUEUED


async def test_a_wait_of_a_stale_worker_is_refused(stage: Stage, worker: Worker) -> None:
    stale = await stage.leased(worker)
    await worker.hand_back(stale)
    assert await worker.sleep(stale) == Stale(run_id=stale.run_id)
    assert await worker.call(stale) == Stale(run_id=stale.run_id)
    assert await stage.count("waitpoints") == 0


async def test_a_parent_gets_the_output_of_the_child_it_waits_for(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    answer = await worker.call(parent, "0", payload='{"n":2}')
    assert answer.wait == Suspended()
    assert await stage.status(parent.run_id) is RunStatus.WAITING
    lease = await worker.lease_one()
    assert lease.payload == '{"n":2}'
    await worker.succeed(lease, output="4")
    (result,) = (await worker.lease_one()).results
    outcome = RunOutcome(run_id=lease.run_id, task_id="work", status=RunStatus.COMPLETED, output="4")
    assert result == WaitResult(operation="0", child=outcome)


async def test_a_parent_gets_the_error_of_a_child_that_failed_for_good(
    stage: Stage, worker: Worker, clock: Clock
) -> None:
    parent = await stage.leased(worker)
    await worker.call(parent, "0", max_attempts=2)
    await worker.fail(await worker.lease_one(), retry_in=timedelta(minutes=1))
    assert await stage.status(parent.run_id) is RunStatus.WAITING
    clock.advance(timedelta(minutes=2))
    await stage.tick()
    await worker.fail(await worker.lease_one(), retry_in=timedelta(minutes=1))
    (result,) = (await worker.lease_one()).results
    assert (result.child.status, result.child.error) == (RunStatus.FAILED, BOOM)


async def test_a_child_that_nobody_waits_for_wakes_nobody(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    assert (await worker.call(parent, wait=False)).wait is None
    lease = await worker.lease_one()
    await worker.succeed(lease)
    assert await stage.status(parent.run_id) is RunStatus.DEQUEUED
    assert await stage.count("waitpoints") == 0


async def test_a_run_that_waits_for_several_resumes_with_each_that_is_done(
    stage: Stage, worker: Worker, clock: Clock
) -> None:
    parent = await stage.leased(worker)
    await stage.engine.trigger_children([child(parent, "0"), child(parent, "1")])
    await worker.sleep(parent, "2", minutes=1)
    first, second = await worker.lease()
    await worker.succeed(second, output="2")
    resumed = await worker.lease_one()
    assert [(r.operation, r.child.output) for r in resumed.results if r.child] == [("1", "2")]
    assert await stage.count("waits") == 2
    assert await suspend(stage, resumed) == Suspended()
    await worker.succeed(first, output="1")
    clock.advance(timedelta(minutes=2))
    await stage.tick()
    resumed = await worker.lease_one()
    assert [(r.operation, r.child and r.child.output) for r in resumed.results] == [("0", "1"), ("2", None)]
    assert (await stage.run(parent.run_id)).waits == 2


async def test_a_run_woken_while_it_was_about_to_wait_for_more_is_given_what_is_there(
    stage: Stage, worker: Worker
) -> None:
    """As in `gather` of a child that is quick and a sleep that is long: the child may end between the two calls."""
    parent = await stage.leased(worker)
    await worker.call(parent, "0")
    await worker.succeed(await worker.lease_one())
    assert await stage.status(parent.run_id) is RunStatus.QUEUED
    assert await worker.sleep(parent, "1", minutes=1) == Pending()
    assert await stage.status(parent.run_id) is RunStatus.QUEUED
    resumed = await worker.lease_one()
    assert [result.operation for result in resumed.results] == ["0"]
    assert await suspend(stage, resumed) == Suspended()


async def test_a_run_with_more_to_do_keeps_its_slot_and_collects_what_came(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    answers = await stage.engine.trigger_children([child(parent, op, suspends=False) for op in ("0", "1")])
    assert [answer.wait for answer in answers if isinstance(answer, ChildTriggered)] == [Pending(), Pending()]
    assert await stage.status(parent.run_id) is RunStatus.DEQUEUED
    assert await stage.engine.collect([holder(parent)]) == []
    first, second = await worker.lease()
    await worker.succeed(first, output="1")
    for _ in range(2):  # until the run suspends
        (delivery,) = await stage.engine.collect([holder(parent)])
        assert [(result.operation, result.child.output) for result in delivery.results if result.child] == [("0", "1")]
    assert await suspend(stage, parent) == Pending()
    assert await suspend(stage, parent, delivered=("0",)) == Suspended()
    await worker.succeed(second)
    assert [result.operation for result in (await worker.lease_one()).results] == ["1"]


async def test_a_run_that_executes_is_told_of_what_it_waits_for(stage: Stage, worker: Worker) -> None:
    heard: list[Wake] = []
    stage.engine.hear(lambda wake: bool(heard.append(wake)))
    parent = await stage.leased(worker)
    await stage.engine.trigger_children([child(parent, "0", suspends=False)])
    lease = await worker.lease_one()
    heard.clear()
    await worker.succeed(lease)
    assert [session for wake in heard for session in wake.resumed] == [worker.session_id]


async def test_a_timer_wakes_a_suspended_run_with_nothing_to_deliver(
    stage: Stage, worker: Worker, clock: Clock
) -> None:
    parent = await stage.leased(worker)
    await stage.engine.trigger_children([child(parent, "0", suspends=False)])
    assert await suspend(stage, parent, until=timedelta(minutes=1)) == Suspended()
    other = await worker.lease_one()
    clock.advance(timedelta(minutes=2))
    await stage.tick()
    resumed = await worker.lease_one()
    assert (resumed.run_id, resumed.is_resumed, resumed.results) == (parent.run_id, True, ())
    await worker.succeed(other)
    (delivery,) = await stage.engine.collect([holder(resumed)])
    assert delivery.holder == holder(resumed)


async def test_a_timer_wakes_a_run_whose_row_a_lease_that_was_cut_off_has_left_in_the_queue(
    stage: Stage, worker: Worker, clock: Clock
) -> None:
    parent = await stage.leased(worker)
    await stage.engine.trigger_children([child(parent, "0", suspends=False)])
    await suspend(stage, parent, until=timedelta(0))
    await stage.tick()
    async with await AsyncConnection.connect(stage.connection.info.dsn) as leasing:
        await leasing.execute("select from detent.ready where run_id = %s for update", [ids.decode("run", parent.run_id)])
        await suspend(stage, parent, until=timedelta(0))
        await leasing.rollback()
    await stage.tick()
    assert parent.run_id in [lease.run_id for lease in await worker.lease()]


async def test_a_run_that_waits_for_nothing_or_is_held_by_another_does_not_suspend(
    stage: Stage, worker: Worker
) -> None:
    lease = await stage.leased(worker)
    assert await suspend(stage, lease) == Pending()
    await worker.hand_back(lease)
    assert await suspend(stage, lease) == Stale(run_id=lease.run_id)
    assert await stage.engine.collect([holder(lease)]) == []


async def test_a_token_that_is_not_there_is_refused_and_recorded_nowhere(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    wait = TokenWait(origin=origin(lease, "0"), waitpoint_id=ids.new_waitpoint_id())
    (answer,) = await stage.engine.wait_for([wait])
    assert isinstance(answer, Refused)
    assert (answer.status, wait.waitpoint_id in answer.message) == (404, True)
    assert await stage.count("journal") == 0


async def test_a_step_is_recorded_once_and_by_its_holder_only(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    step = StepRecord(origin=origin(lease, "a#0", wait=False), fingerprint="f", output="1")
    assert await stage.engine.record_steps([step, replace(step, output="2")]) == [Recorded(), Recorded()]
    (entry,) = await journal_of(stage.engine, holder(lease))
    assert (entry.output, entry.error, entry.kind) == ("1", None, OperationKind.STEP)
    await worker.hand_back(lease)
    assert await stage.engine.record_steps([step]) == [Stale(run_id=lease.run_id)]


async def test_steps_of_earlier_attempts_are_read_but_for_those_that_failed(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    good = StepRecord(origin=origin(lease, "good#0", wait=False), fingerprint="f", output="1")
    bad = StepRecord(origin=origin(lease, "bad#0", wait=False), fingerprint="f", error="{}")
    await stage.engine.record_steps([good, bad])
    await worker.call(lease, "0", wait=False)
    await worker.fail(lease, retry_in=timedelta(0))
    await stage.a_moment_passes()
    again = next(taken for taken in await worker.lease() if taken.run_id == lease.run_id)
    assert [(e.operation, e.attempt) for e in await journal_of(stage.engine, holder(again))] == [("good#0", 1)]


async def test_the_order_of_answers_is_kept_with_the_operations(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    first = StepRecord(origin=replace(origin(lease, "a#0"), stamp=Stamp(answers=0)), fingerprint="f", output="1")
    stamp = Stamp(answers=2, seen=("b, with a comma", "-a#0"))
    await stage.engine.record_steps([first])
    await stage.engine.trigger_children([replace(child(lease, "0"), origin=replace(origin(lease, "0"), stamp=stamp))])
    assert [entry.stamp for entry in await journal_of(stage.engine, holder(lease))] == [Stamp(), stamp]


async def test_journals_of_many_runs_are_read_in_one_call(stage: Stage, worker: Worker) -> None:
    leases = [await stage.leased(worker) for _ in range(3)]
    await worker.call(leases[0], "0", wait=False)
    await worker.hand_back(leases[2])
    pages = await stage.engine.read_journals([JournalRead(holder=holder(lease)) for lease in leases])
    assert [len(page) if isinstance(page, list) else page for page in pages] == [1, 0, Stale(run_id=leases[2].run_id)]


async def suspend(stage: Stage, lease: Lease, **options: Any) -> Suspended | Pending | Stale:
    (answer,) = await stage.engine.suspend([Suspension(holder=holder(lease), **options)])
    return answer


async def test_a_finished_run_found_by_its_key_is_not_waited_for(stage: Stage, worker: Worker) -> None:
    first = await stage.leased(worker, idempotency=KEY)
    await worker.succeed(first, output="7")
    parent = await stage.leased(worker)
    answer = await worker.call(parent, "0", idempotency=KEY)
    outcome = RunOutcome(run_id=first.run_id, task_id="work", status=RunStatus.COMPLETED, output="7")
    assert isinstance(answer, ChildTriggered)
    assert answer.triggered.is_cached
    assert answer.wait == WaitResult(operation="0", child=outcome)
    assert await stage.status(parent.run_id) is RunStatus.DEQUEUED
    await worker.succeed(parent)


async def test_two_parents_wait_for_one_child(stage: Stage, worker: Worker) -> None:
    one, two = [await stage.leased(worker) for _ in range(2)]
    first = await worker.call(one, "0", idempotency=KEY)
    second = await worker.call(two, "0", idempotency=KEY)
    assert second.triggered.run_id == first.triggered.run_id
    assert (first.triggered.is_cached, second.triggered.is_cached) == (False, True)
    await worker.succeed(await worker.lease_one(), output="5")
    resumed = await worker.lease()
    assert {lease.run_id for lease in resumed} == {one.run_id, two.run_id}
    assert [lease.results[0].child.output for lease in resumed] == ["5", "5"]
    await worker.succeed(resumed[0])
    assert (await journal_of(stage.engine, holder(resumed[1])))[0].result.child.output == "5"
    await worker.succeed(resumed[1])


async def test_the_second_parent_is_woken_after_the_first_was_cancelled(stage: Stage, worker: Worker) -> None:
    one, two = [await stage.leased(worker) for _ in range(2)]
    run_id = await stage.trigger(idempotency=KEY)
    (shared,) = await worker.lease()
    assert shared.run_id == run_id
    await worker.call(one, "0", idempotency=KEY)
    await worker.call(two, "0", idempotency=KEY)
    await stage.engine.cancel_runs([one.run_id], "only one")
    await worker.succeed(shared)
    assert [lease.run_id for lease in await worker.lease()] == [two.run_id]


async def test_a_run_may_wait_for_one_child_in_two_operations(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    answers = await stage.engine.trigger_children([child(parent, op, idempotency=KEY) for op in ("0", "1")])
    assert [answer.triggered.is_cached for answer in answers] == [False, True]
    await worker.succeed(await worker.lease_one(), output="1")
    resumed = await worker.lease_one()
    assert sorted(result.operation for result in resumed.results) == ["0", "1"]


async def test_a_wait_asked_for_twice_is_one_wait(stage: Stage, worker: Worker, clock: Clock) -> None:
    lease = await stage.leased(worker)
    wait = time_wait(lease, "0")
    assert await stage.engine.wait_for([wait]) == [Suspended()]
    assert await stage.engine.wait_for([wait]) == [Suspended()]
    assert await stage.count("waits") == 1
    clock.advance(timedelta(hours=2))
    await stage.tick()
    assert await stage.engine.wait_for([wait]) == [Pending()]
    (result,) = (await worker.lease_one()).results
    assert result.operation == "0"


async def test_a_child_asked_for_again_after_its_end_comes_with_the_lease(stage: Stage, worker: Worker) -> None:
    """The run is not held by then: an answer with the result would let it run on without a lease."""
    parent = await stage.leased(worker)
    wanted = child(parent, "0")
    await stage.engine.trigger_children([wanted])
    await worker.succeed(await worker.lease_one(), output="3")
    (again,) = await stage.engine.trigger_children([wanted])
    assert again.wait == Pending()
    resumed = await worker.lease_one()
    assert resumed.results[0].child.output == "3"
    assert await stage.count("history") == 1
    await worker.succeed(resumed)
    assert await stage.count("waitpoints") == 0


async def test_a_child_asked_for_again_while_it_runs_is_waited_for_in_the_same_way(
    stage: Stage, worker: Worker
) -> None:
    """A timer has woken the run meanwhile."""
    parent = await stage.leased(worker)
    wanted = child(parent, "0")
    await stage.engine.trigger_children([wanted])
    await suspend(stage, parent, until=timedelta(0))
    await stage.tick()
    assert await stage.status(parent.run_id) is RunStatus.QUEUED
    (again,) = await stage.engine.trigger_children([wanted])
    assert isinstance(again, ChildTriggered)
    assert again.wait == Suspended()
    assert await stage.status(parent.run_id) is RunStatus.WAITING


async def test_a_woken_run_has_a_head_start_in_the_runner_that_remembers_it(stage: Stage, worker: Worker) -> None:
    other = await stage.session(worker.version)
    parent = await stage.leased(worker)
    await worker.call(parent)
    await worker.succeed(await worker.lease_one())
    assert await other.lease() == []
    assert (await worker.lease_one()).is_resumed


async def test_a_woken_run_that_its_runner_does_not_take_goes_to_anyone(stage: Stage, worker: Worker) -> None:
    other = await stage.session(worker.version)
    parent = await stage.leased(worker, payload='{"n":1}')
    await worker.call(parent)
    await worker.succeed(await worker.lease_one(), output="9")
    await stage.query("update detent.ready set resident_until = clock_timestamp() - interval '1 second'")
    taken = await other.lease_one()
    assert (taken.is_resumed, taken.payload, taken.has_journal) == (False, '{"n":1}', True)
    assert taken.results[0].child.output == "9"
    assert (await worker.renew(parent)).lost == (parent.run_id,)
    assert await worker.succeed(parent) == [Stale(run_id=parent.run_id)]


async def test_a_tree_of_waits_unwinds(stage: Stage, worker: Worker) -> None:
    await stage.trigger()
    leases = [await worker.lease_one()]
    for _ in range(10):
        await worker.call(leases[-1])
        leases.append(await worker.lease_one())
    depth = len(leases)
    await worker.succeed(leases.pop())
    while leases:
        resumed = await worker.lease_one()
        assert resumed.run_id == leases.pop().run_id
        await worker.succeed(resumed)
    assert await stage.count("history") == depth
