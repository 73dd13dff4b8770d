"""The runner against a real database: every attempt comes to the outcome that it deserves, exactly once."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
from collections.abc import Sequence
from datetime import timedelta

import pytest

from detent import INHERIT, AbortTaskRunError, CancelSignal, Context, Retry, logger, queue, task, wait
from detent.errors import RunCancelledError, StaleRunError
from detent.protocol.ids import RunId
from detent.protocol.leases import HandBack, Lease, LeaseRequest
from detent.protocol.run_error import ErrorCode
from detent.protocol.runs import RunOutcome
from detent.protocol.status import RunStatus
from detent.worker import overrun
from detent.worker import runner as runner_module
from detent.worker.control import Drain, Finished, Lost, Poisoned, Reopen, Up
from detent.worker.telling import EventKind
from tests.worker.conftest import StartRig
from tests.worker.rig import Rig


def error_of(outcome: RunOutcome) -> tuple[str, str]:
    assert outcome.error is not None
    return outcome.error.name, outcome.error.code


async def test_an_async_task_returns_its_output(start_rig: StartRig) -> None:
    @task
    async def double(number: int) -> int:
        return number * 2

    async with start_rig() as rig:
        outcome = await rig.run("double", 21)
    assert (outcome.status, outcome.output) == (RunStatus.COMPLETED, "42")


async def test_a_plain_function_runs_in_a_thread(start_rig: StartRig) -> None:
    @task
    def where() -> str:
        return threading.current_thread().name

    async with start_rig() as rig:
        outcome = await rig.run("where")
    assert outcome.output is not None
    assert outcome.output.startswith('"detent-')


async def test_a_failed_attempt_is_tried_again_under_its_own_number(start_rig: StartRig) -> None:
    @task(retry=Retry(max_attempts=3, min_timeout="1ms", max_timeout="1ms"))
    async def third_time(ctx: Context) -> int:
        if ctx.attempt.number < 3:
            raise ValueError("not yet")
        return ctx.attempt.number

    async with start_rig() as rig:
        outcome = await rig.run("third_time")
    assert outcome.output == "3"


async def test_attempts_end_at_the_limit_with_the_last_error(start_rig: StartRig) -> None:
    @task(retry=Retry(max_attempts=2, min_timeout="1ms", max_timeout="1ms"))
    async def never(ctx: Context) -> None:
        raise LookupError(f"attempt {ctx.attempt.number}")

    async with start_rig() as rig:
        outcome = await rig.run("never")
    assert outcome.status is RunStatus.FAILED
    assert outcome.error is not None
    assert (outcome.error.name, outcome.error.message) == ("LookupError", "attempt 2")
    assert "raise LookupError" in outcome.error.traceback


async def test_an_abort_is_not_retried(start_rig: StartRig) -> None:
    @task
    async def hopeless() -> None:
        raise AbortTaskRunError("stop here")

    async with start_rig() as rig:
        run_id = await rig.trigger("hopeless")
        outcome = await rig.end_of(run_id)
        record = await rig.record(run_id)
    assert (outcome.status, record.attempt) == (RunStatus.FAILED, 1)


async def test_a_payload_that_does_not_fit_is_an_input_error_and_never_retried(start_rig: StartRig) -> None:
    @task
    async def typed(number: int) -> int:
        return number

    async with start_rig() as rig:
        run_id = await rig.trigger("typed", "no number", is_validated=True)
        outcome = await rig.end_of(run_id)
        record = await rig.record(run_id)
    assert error_of(outcome) == ("TaskPayloadParsedError", ErrorCode.TASK_INPUT)
    assert record.attempt == 1


async def test_an_output_that_is_no_json_is_an_output_error(start_rig: StartRig) -> None:
    @task
    async def unstorable():  # type: ignore[no-untyped-def]
        return object()

    async with start_rig() as rig:
        outcome = await rig.run("unstorable")
    assert error_of(outcome)[1] == ErrorCode.TASK_OUTPUT


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), StopIteration(), asyncio.CancelledError()])
async def test_whatever_a_task_raises_ends_its_own_attempt_only(start_rig: StartRig, raised: BaseException) -> None:
    @task(retry=1)
    async def on_the_loop() -> None:
        raise raised

    @task(retry=1)
    def in_a_thread() -> None:
        raise raised

    async with start_rig() as rig:
        outcomes = [await rig.run("on_the_loop"), await rig.run("in_a_thread")]
    assert [outcome.status for outcome in outcomes] == [RunStatus.FAILED] * 2


async def test_a_child_task_that_exits_does_not_end_the_runner(start_rig: StartRig) -> None:
    @task(retry=1)
    async def spawns() -> None:
        async def leave() -> None:
            raise SystemExit(1)

        await asyncio.create_task(leave())

    @task
    async def neighbour() -> str:
        return "fine"

    async with start_rig() as rig:
        outcome = await rig.run("spawns")
        assert (await rig.run("neighbour")).output == '"fine"'
    assert outcome.status is RunStatus.FAILED


async def test_a_short_wait_sleeps_in_the_process_and_is_not_recorded(start_rig: StartRig) -> None:
    @task
    async def naps() -> None:
        await wait.for_("1ms")

    async with start_rig() as rig:
        run_id = await rig.trigger("naps")
        await rig.end_of(run_id)
        record = await rig.record(run_id)
    assert record.waits == 0


async def test_a_long_wait_costs_no_time_but_the_clocks(start_rig: StartRig) -> None:
    @task
    async def patient() -> str:
        here = object()
        await wait.for_(days=30)
        return "same memory" if here else ""

    async with start_rig() as rig:
        run_id = await rig.trigger("patient")
        await rig.saw(run_id, EventKind.WAITING)
        rig.clock.advance(timedelta(days=31))
        outcome = await rig.end_of(run_id)
    assert outcome.output == '"same memory"'


async def test_a_waiting_run_holds_no_room(start_rig: StartRig) -> None:
    @task
    async def waits() -> None:
        await wait.for_(hours=1)

    @task
    async def quick() -> str:
        return "ran"

    async with start_rig(async_slots=1) as rig:
        run_id = await rig.trigger("waits")
        await rig.saw(run_id, EventKind.WAITING)
        assert (await rig.run("quick")).output == '"ran"'


async def test_a_parent_waits_for_its_child_in_memory(start_rig: StartRig) -> None:
    starts: list[int] = []

    @task
    async def child(number: int) -> int:
        return number + 1

    @task
    async def parent() -> int:
        starts.append(1)
        total = 0
        for number in range(3):
            total += await child.call(number)
        return total

    async with start_rig() as rig:
        outcome = await rig.run("parent")
    assert (outcome.output, len(starts)) == ("6", 1)


async def test_a_child_inherits_what_its_parent_was_triggered_with(start_rig: StartRig) -> None:
    queue("cards")

    @task
    async def child(ctx: Context) -> list[object]:
        return [ctx.queue.name, ctx.run.concurrency_key, list(ctx.run.tags)]

    @task(queue="cards")
    async def parent() -> str:
        handle = await child.trigger(queue=INHERIT, concurrency_key=INHERIT, tags=INHERIT, metadata=INHERIT)
        return handle.id

    @task(queue="cards")
    def threaded() -> list[object]:
        return child.sync.call(queue=INHERIT, concurrency_key=INHERIT, tags=INHERIT)

    given = {"concurrency_key": "user 7", "tags": ("a", "b"), "metadata": '{"source": "shop"}'}
    async with start_rig() as rig:
        outcome = await rig.run("parent", **given)
        made = await rig.record(RunId(json.loads(outcome.output or "")))
        awaited = await rig.run("threaded", **given)
    assert (made.queue, made.concurrency_key, made.tags) == ("cards", "user 7", ("a", "b"))
    assert json.loads(made.metadata or "") == {"source": "shop"}
    assert awaited.output == '["cards","user 7",["a","b"]]'


async def test_children_may_be_awaited_together(start_rig: StartRig) -> None:
    @task
    async def child(number: int) -> int:
        return number + 1

    @task
    async def parent() -> int:
        return sum(await asyncio.gather(*(child.call(number) for number in range(5))))

    async with start_rig() as rig:
        outcome = await rig.run("parent")
    assert outcome.output == "15"


async def test_a_batch_gives_its_results_in_order(start_rig: StartRig) -> None:
    @task(retry=1)
    async def child(number: int) -> int:
        if number == 1:
            raise ValueError("one")
        return number

    @task
    async def parent() -> list[str]:
        done = await child.batch_trigger_and_wait([0, 1, 2])
        return [str(run.output) if run.ok else run.error.message for run in done.runs]

    async with start_rig() as rig:
        outcome = await rig.run("parent")
    assert outcome.output == '["0","one","2"]'


async def test_a_plain_function_waits_and_calls_children_by_the_blocking_twins(start_rig: StartRig) -> None:
    @task
    def child(number: int) -> int:
        return number + 1

    @task
    def parent() -> int:
        wait.sync.for_(minutes=5)
        return child.sync.trigger_and_wait(1).unwrap()

    async with start_rig(thread_slots=1) as rig:
        run_id = await rig.trigger("parent")
        await rig.saw(run_id, EventKind.WAITING)
        rig.clock.advance(timedelta(minutes=6))
        outcome = await rig.end_of(run_id)
    assert outcome.output == "2"


async def test_a_run_whose_memory_is_gone_goes_on_where_it_stood(start_rig: StartRig) -> None:
    calls: list[str] = []

    @task
    async def child(number: int) -> int:
        calls.append(f"child {number}")
        return number

    @task
    async def parent() -> int:
        calls.append("parent")
        first = await child.call(1)
        await wait.for_(hours=1)
        return first + await child.call(2)

    async with start_rig() as rig:
        run_id = await rig.trigger("parent")
        await rig.saw(run_id, EventKind.WAITING, times=2)
    async with start_rig() as rig:
        rig.clock.advance(timedelta(hours=2))
        outcome = await rig.end_of(run_id)
        record = await rig.record(run_id)
    assert (outcome.output, record.attempt) == ("3", 1)
    assert calls == ["parent", "child 1", "parent", "child 2"]


async def test_a_thread_whose_process_is_gone_goes_on_where_it_stood(start_rig: StartRig) -> None:
    starts: list[int] = []

    @task
    def sleeper() -> str:
        starts.append(1)
        wait.sync.for_(hours=1)
        return "woken"

    async with start_rig() as rig:
        run_id = await rig.trigger("sleeper")
        await rig.saw(run_id, EventKind.WAITING)
    async with start_rig() as rig:
        rig.clock.advance(timedelta(hours=2))
        outcome = await rig.end_of(run_id)
    assert (outcome.output, len(starts)) == ('"woken"', 2)


async def test_threads_beyond_the_cap_are_let_go_and_replayed(
    start_rig: StartRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "MOST_BLOCKED", 1)
    starts: list[int] = []

    @task
    def sleeper() -> str:
        starts.append(1)
        wait.sync.for_(hours=1)
        return "woken"

    async with start_rig() as rig:
        runs = [await rig.trigger("sleeper") for _ in range(3)]
        for run_id in runs:
            await rig.saw(run_id, EventKind.WAITING)
        rig.clock.advance(timedelta(hours=2))
        outcomes = [await rig.end_of(run_id) for run_id in runs]
    assert [outcome.output for outcome in outcomes] == ['"woken"'] * 3
    assert len(starts) == 5


async def test_a_replay_that_asks_for_something_else_fails_naming_both(start_rig: StartRig) -> None:
    starts: list[int] = []

    @task
    async def child() -> None:
        return

    @task
    async def fickle() -> None:
        starts.append(1)
        if len(starts) == 1:
            await wait.for_(hours=1)
        else:
            await child.trigger_and_wait()

    async with start_rig() as rig:
        run_id = await rig.trigger("fickle")
        await rig.saw(run_id, EventKind.WAITING)
    async with start_rig() as rig:
        rig.clock.advance(timedelta(hours=2))
        outcome = await rig.end_of(run_id)
    assert error_of(outcome) == ("NonDeterminismError", ErrorCode.NON_DETERMINISM)
    assert outcome.error is not None
    assert "time" in outcome.error.message
    assert "child of child" in outcome.error.message


async def test_code_that_swallows_non_determinism_fails_all_the_same(start_rig: StartRig) -> None:
    starts: list[int] = []

    @task
    async def fickle() -> str:
        starts.append(1)
        try:
            if len(starts) == 1:
                await wait.for_(hours=1)
            else:
                await other.trigger()
        except Exception:  # noqa: BLE001
            return "carried on"
        return ""

    @task
    async def other() -> None:
        return

    async with start_rig() as rig:
        run_id = await rig.trigger("fickle")
        await rig.saw(run_id, EventKind.WAITING)
    async with start_rig() as rig:
        rig.clock.advance(timedelta(hours=2))
        outcome = await rig.end_of(run_id)
    assert error_of(outcome)[1] == ErrorCode.NON_DETERMINISM


async def test_lines_are_kept_once_when_a_run_is_replayed(start_rig: StartRig) -> None:
    @task
    async def talks() -> None:
        print("before")
        await wait.for_(hours=1)
        print("after")

    async with start_rig() as rig:
        run_id = await rig.trigger("talks")
        await rig.saw(run_id, EventKind.WAITING)
    async with start_rig() as rig:
        rig.clock.advance(timedelta(hours=2))
        await rig.end_of(run_id)
        assert await rig.messages_of(run_id) == ["before", "after"]


async def test_what_was_printed_is_stored_before_the_run_is_final(start_rig: StartRig) -> None:
    @task
    async def talks() -> None:
        print("one")
        print("no newline", end="")

    async with start_rig() as rig:
        run_id = await rig.trigger("talks")
        await rig.end_of(run_id)
        assert await rig.messages_of(run_id) == ["one", "no newline"]


async def test_the_log_level_is_of_the_logger_alone(start_rig: StartRig) -> None:
    @task
    async def talks() -> None:
        logger.error("by the logger")
        print("printed")
        print("to stderr", file=sys.stderr)
        logging.getLogger("shop").info("by the standard library")

    async with start_rig(log_level="none") as rig:
        run_id = await rig.trigger("talks")
        await rig.end_of(run_id)
        assert await rig.messages_of(run_id) == ["printed", "to stderr", "by the standard library"]


async def test_an_attempt_over_its_time_is_ended_at_once(start_rig: StartRig) -> None:
    ended = asyncio.Event()

    @task(max_duration="20ms")
    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with start_rig() as rig:
        run_id = await rig.trigger("endless")
        outcome = await rig.end_of(run_id)
        await ended.wait()
    assert (outcome.status, error_of(outcome)[1]) == (RunStatus.TIMED_OUT, ErrorCode.MAX_DURATION)


async def test_time_spent_waiting_does_not_count(start_rig: StartRig) -> None:
    @task(max_duration="1s")
    async def waits() -> str:
        await wait.for_(hours=5)
        return "in time"

    async with start_rig() as rig:
        run_id = await rig.trigger("waits")
        await rig.saw(run_id, EventKind.WAITING)
        rig.clock.advance(timedelta(hours=6))
        assert (await rig.end_of(run_id)).output == '"in time"'


async def test_code_that_swallows_its_end_poisons_the_runner_and_neighbours_end_well(
    start_rig: StartRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overrun, "END_GRACE", 0.05)
    released, begun = asyncio.Event(), asyncio.Event()

    @task(max_duration="20ms")
    async def stubborn() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                begun.set()

    @task
    async def neighbour() -> str:
        await released.wait()
        return "fine"

    async with start_rig() as rig:
        beside = await rig.trigger("neighbour")
        stuck = await rig.trigger("stubborn")
        poisoned = await rig.supervision.until(Poisoned)
        assert isinstance(poisoned, Poisoned)
        assert poisoned.run_id == stuck
        assert not any(isinstance(message, Finished) for message in rig.supervision.said)
        released.set()
        assert (await rig.end_of(beside)).output == '"fine"'
        await rig.supervision.until(Finished)
    assert begun.is_set()


async def test_a_cancelled_run_is_interrupted_and_gives_its_slot_back(start_rig: StartRig) -> None:
    begun, cleaned = asyncio.Event(), asyncio.Event()

    @task
    async def long() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async with start_rig() as rig:
        run_id = await rig.trigger("long")
        await begun.wait()
        await rig.backend.cancel_runs([run_id], "enough")
        await cleaned.wait()
        await rig.runner._endings.emptied()
        renewed = await rig.renew()
        assert (await rig.end_of(run_id)).status is RunStatus.CANCELED
    assert renewed.cancelled == ()


async def test_a_task_that_watches_its_signal_ends_by_itself_when_cancelled(start_rig: StartRig) -> None:
    begun, cleaned = asyncio.Event(), asyncio.Event()

    @task
    async def watchful(signal: CancelSignal) -> None:
        begun.set()
        await signal.wait()
        cleaned.set()

    async with start_rig() as rig:
        run_id = await rig.trigger("watchful")
        await begun.wait()
        await rig.backend.cancel_runs([run_id], "enough")
        await cleaned.wait()


async def test_a_thread_learns_of_its_cancel_at_its_next_detent_call(start_rig: StartRig) -> None:
    begun, ended = threading.Event(), threading.Event()
    seen: list[BaseException] = []

    @task
    def blocking() -> None:
        begun.set()
        try:
            while True:
                wait.sync.for_("1ms")
        except RunCancelledError as error:
            seen.append(error)
            raise
        finally:
            ended.set()

    async with start_rig() as rig:
        run_id = await rig.trigger("blocking")
        await asyncio.to_thread(begun.wait)
        await rig.backend.cancel_runs([run_id], "enough")
        await asyncio.to_thread(ended.wait)
    assert isinstance(seen[0], RunCancelledError)


async def test_a_copy_that_was_lost_is_dropped_and_its_calls_are_refused(start_rig: StartRig) -> None:
    begun, refused = asyncio.Event(), asyncio.Event()
    starts: list[int] = []

    @task
    async def long() -> str:
        starts.append(1)
        if len(starts) > 1:
            return "by another copy"
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await wait.for_(hours=1)
            except StaleRunError:
                refused.set()
        return ""

    async with start_rig() as rig:
        run_id = await rig.trigger("long")
        await begun.wait()
        (attempt,) = rig.runner._held.values()
        await rig.backend.hand_back([HandBack(holder=attempt.holder)])
        rig.runner.receive(Lost(holders=((run_id, attempt.fence),)))
        await refused.wait()
        assert (await rig.end_of(run_id)).output == '"by another copy"'


async def test_a_loss_that_speaks_of_an_older_fence_is_ignored(start_rig: StartRig) -> None:
    release = asyncio.Event()

    @task
    async def holds() -> str:
        await release.wait()
        return "kept"

    async with start_rig() as rig:
        run_id = await rig.trigger("holds")
        await rig.saw(run_id, EventKind.STARTED)
        rig.runner.receive(Lost(holders=((run_id, 1),)))
        release.set()
        assert (await rig.end_of(run_id)).output == '"kept"'


async def test_a_runner_whose_session_was_ended_drops_its_runs_and_goes_on_under_another(start_rig: StartRig) -> None:
    from detent.protocol import ids
    from detent.protocol.sessions import SessionEnd

    starts: list[int] = []
    begun = asyncio.Event()

    @task
    async def long() -> str:
        starts.append(1)
        begun.set()
        if len(starts) == 1:
            await asyncio.Event().wait()
        return "again"

    async with start_rig() as rig:
        run_id = await rig.trigger("long")
        await begun.wait()
        await rig.backend.end_session(SessionEnd(session_id=rig.session))
        assert not (await rig.renew()).is_alive
        rig.session = ids.new_session_id()
        rig.runner.receive(Reopen(session_id=rig.session))
        await rig.supervision.until(Up, count=2)
        assert (await rig.end_of(run_id)).output == '"again"'
        await rig.backend.end_session(SessionEnd(session_id=rig.session))


async def test_a_drain_hands_back_what_does_not_end_in_time(start_rig: StartRig) -> None:
    release = asyncio.Event()

    @task
    async def ends() -> str:
        await release.wait()
        return "ended"

    @task
    async def stays() -> None:
        await asyncio.Event().wait()

    @task
    async def waits() -> None:
        await wait.for_(hours=1)

    async with start_rig() as rig:
        runs = {name: await rig.trigger(name) for name in ("ends", "stays", "waits")}
        await rig.saw(runs["waits"], EventKind.WAITING)
        await rig.saw(runs["stays"], EventKind.STARTED)
        rig.runner.receive(Drain(grace=0.2))
        release.set()
        await rig.supervision.until(Finished)
        records = {name: await rig.record(run_id) for name, run_id in runs.items()}
    assert {name: record.status for name, record in records.items()} == {
        "ends": RunStatus.COMPLETED,
        "stays": RunStatus.QUEUED,
        "waits": RunStatus.WAITING,
    }
    assert records["stays"].attempt == 1


async def test_a_run_that_may_not_begin_twice_crashes_when_a_drain_does_not_wait_for_it(start_rig: StartRig) -> None:
    begun = asyncio.Event()

    @task(on_lost="fail")
    async def stays() -> None:
        begun.set()
        await asyncio.Event().wait()

    @task(on_lost="fail")
    async def waits() -> None:
        await wait.for_(hours=1)

    async with start_rig() as rig:
        runs = [await rig.trigger("stays"), await rig.trigger("waits")]
        await rig.saw(runs[1], EventKind.WAITING)
        await begun.wait()
        rig.runner.receive(Drain(grace=0))
        await rig.supervision.until(Finished)
        records = [await rig.record(run_id) for run_id in runs]
    assert [record.status for record in records] == [RunStatus.CRASHED, RunStatus.WAITING]
    assert records[0].error is not None
    assert records[0].error.code == ErrorCode.WORKER_LOST


async def test_a_lease_counts_as_unanswered_until_its_run_begins(
    start_rig: StartRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []
    begun: list[tuple[int, ...]] = []
    rigs: list[Rig] = []

    @task
    async def looks() -> None:
        begun.append(rigs[0].note.unanswered())

    async with start_rig() as rig:
        rigs.append(rig)
        lease = rig.runner._leasing._lease

        async def look_and_lease(request: LeaseRequest) -> Sequence[Lease]:
            leases = await lease(request)
            asked.extend(rig.note.unanswered() for lease in leases if lease.fence in rig.note.unanswered())
            return leases

        monkeypatch.setattr(rig.runner._leasing, "_lease", look_and_lease)
        await rig.run("looks")
    assert len(asked) == 1
    assert set(asked[0]) - set(begun[0])


async def test_a_solo_runner_executes_one_run_and_finishes(start_rig: StartRig) -> None:
    @task(isolation="process")
    async def alone() -> int:
        return os.getpid()

    async with start_rig(is_solo=True) as rig:
        first = await rig.trigger("alone")
        second = await rig.trigger("alone")
        await rig.end_of(first)
        await rig.supervision.until(Finished)
        record = await rig.record(second)
    assert record.status is RunStatus.QUEUED


async def test_a_run_is_noted_while_it_is_on_the_cpu_and_only_then(start_rig: StartRig) -> None:
    seen: list[list[str]] = []
    rigs: list[object] = []

    @task
    async def looks() -> None:
        from tests.worker.rig import Rig

        (rig,) = rigs
        assert isinstance(rig, Rig)

        async def in_a_child_task() -> list[str]:
            return [run.task_id for run in rig.note.on_cpu()]

        seen.append([run.task_id for run in rig.note.on_cpu()])
        seen.append(await asyncio.create_task(in_a_child_task()))
        seen.append([run.task_id for run in await asyncio.to_thread(rig.note.in_threads)])

    async with start_rig() as rig:
        rigs.append(rig)
        await rig.run("looks")
        assert rig.note.on_cpu() == []
    assert seen == [["looks"]] * 3


async def test_runs_leave_no_task_and_no_thread_behind(start_rig: StartRig) -> None:
    @task
    async def noop() -> None:
        return

    @task
    def threaded() -> None:
        return

    async with start_rig() as rig:
        await rig.run("noop")
        await rig.run("threaded")
        tasks, threads = len(asyncio.all_tasks()), threading.active_count()
        runs = [await rig.trigger(name) for name in ("noop", "threaded") * 40]
        for run_id in runs:
            await rig.end_of(run_id)
        await rig.runner._outcomes.emptied()
        assert len(asyncio.all_tasks()) <= tasks
        assert threading.active_count() <= threads + 32
        assert not rig.runner._held
        assert rig.runner._room.executing == 0


async def test_what_code_says_on_its_way_out_of_memory_takes_the_place_of_no_line(start_rig: StartRig) -> None:
    @task
    async def sleeper() -> None:
        with logger.trace("whole"):
            await wait.for_(hours=1)
            logger.info("after")

    async with start_rig() as rig:
        run_id = await rig.trigger("sleeper")
        await rig.saw(run_id, EventKind.WAITING)
    async with start_rig() as rig:
        rig.clock.advance(timedelta(hours=2))
        await rig.end_of(run_id)
        messages = await rig.messages_of(run_id)
    assert messages == ["after", "whole"]
