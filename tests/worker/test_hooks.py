"""Hooks around the attempts of runs: their order, what an error in each does, and that final ones are called for every end."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from detent import (
    AbortTaskRunError,
    CancelSignal,
    Context,
    Err,
    HookWaitError,
    Local,
    Next,
    Result,
    Retry,
    RetryAt,
    RetryWith,
    RunFailedError,
    SkipRetrying,
    WaitInfo,
    schema_task,
    task,
    tasks,
    wait,
)
from detent.protocol.flow import LimitKind, LimitRef, Pause
from detent.protocol.run_error import ErrorCode
from detent.protocol.status import RunStatus
from detent.worker.control import Finished
from detent.worker.telling import EventKind
from tests.worker.conftest import StartRig
from tests.worker.rig import PATIENCE

ONCE = Retry(max_attempts=1)
SOON = Retry(max_attempts=3, min_timeout="1ms", max_timeout="1ms")


class Calls(list[str]):
    """What was called, and a way to wait until something was."""

    def __init__(self) -> None:
        super().__init__()
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def add(self, call: str) -> None:
        self.append(call)
        self._loop.call_soon_threadsafe(self._news.set)

    async def until(self, call: str, *, count: int = 1) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.count(call) < count:
                self._news.clear()
                await self._news.wait()


@pytest.fixture
async def calls() -> Calls:
    return Calls()


# ---- order ----------------------------------------------------------------------------------------------------------


async def test_hooks_of_all_tasks_come_before_those_of_the_task(start_rig: StartRig, calls: Calls) -> None:
    @tasks.middleware("outer")
    async def outer(next: Next) -> None:
        calls.add("outer in")
        await next()
        calls.add("outer out")

    @tasks.on_start_attempt
    def begins() -> None:
        calls.add("global start")

    @tasks.on_success
    async def succeeded() -> None:
        calls.add("global success")

    @task
    async def charge() -> int:
        calls.add("run")
        return 5

    @charge.middleware
    async def inner(next: Next) -> None:
        calls.add("inner in")
        await next()
        calls.add("inner out")

    @charge.on_start_attempt
    async def starts() -> None:
        calls.add("start")

    @charge.on_success
    def on_success(output: int) -> None:
        calls.add(f"success {output}")

    @charge.on_complete
    async def on_complete(result: Result[int]) -> None:
        calls.add("complete" if result.ok else "failed")

    async with start_rig() as rig:
        await rig.run("charge")
        await calls.until("outer out", count=2)
    around_run = ["outer in", "inner in", "global start", "start", "run", "inner out", "outer out"]
    around_end = ["outer in", "inner in", "global success", "success 5", "complete", "inner out", "outer out"]
    assert calls == around_run + around_end


async def test_the_end_is_recorded_before_its_hooks_are_called(start_rig: StartRig, calls: Calls) -> None:
    @task
    async def charge() -> None: ...

    async with start_rig() as rig:

        @charge.on_success
        async def on_success(ctx: Context) -> None:
            calls.add((await rig.record(ctx.run.id)).status)

        await rig.run("charge")
        await calls.until("COMPLETED")


async def test_an_attempt_that_is_followed_by_another_has_no_final_hooks(start_rig: StartRig, calls: Calls) -> None:
    @task(retry=SOON)
    async def charge(ctx: Context) -> None:
        raise ValueError(f"attempt {ctx.attempt.number}")

    @charge.on_failure
    async def on_failure(error: BaseException, payload: object, task: object, signal: CancelSignal) -> None:
        calls.add(str(error))
        assert isinstance(error, ValueError)

    async with start_rig() as rig:
        await rig.run("charge")
        await calls.until("attempt 3")
    assert calls == ["attempt 3"]


async def test_a_payload_that_does_not_fit_fails_with_hooks(start_rig: StartRig, calls: Calls) -> None:
    def parse(value: object) -> int:
        raise ValueError(f"{value} is no amount")

    @schema_task(schema=parse, on_failure=lambda payload, error: calls.add(f"{payload} {type(error).__name__}"))
    async def charge(amount: int) -> None: ...

    async with start_rig() as rig:
        await rig.run("charge", "much")
        await calls.until("None TaskPayloadParsedError")


async def test_hooks_of_threads_see_the_locals_of_the_attempt(start_rig: StartRig, calls: Calls) -> None:
    name = Local[str]("name")

    @tasks.middleware("name")
    async def names(next: Next) -> None:
        name.set("o1")
        await next()

    @task
    def charge() -> str:
        return name.get_or_raise()

    @charge.on_success
    def on_success(output: str) -> None:
        calls.add(f"{output} {name.get()} {threading.current_thread().name[:7]}")

    async with start_rig() as rig:
        await rig.run("charge")
        await calls.until("o1 o1 detent-")


async def test_locals_belong_to_one_attempt(start_rig: StartRig) -> None:
    seen = Local[int]("seen")

    @task(retry=SOON)
    async def charge(ctx: Context) -> int | None:
        if ctx.attempt.number == 1:
            seen.set(1)
            raise ValueError("not yet")
        return seen.get()

    async with start_rig() as rig:
        outcome = await rig.run("charge")
    assert outcome.output is None


# ---- errors ---------------------------------------------------------------------------------------------------------


async def test_an_error_of_a_start_hook_is_one_of_the_attempt(start_rig: StartRig, calls: Calls) -> None:
    @task(retry=ONCE)
    async def charge() -> None:
        calls.add("run")

    @charge.on_start_attempt
    async def refuses() -> None:
        raise LookupError("no card")

    async with start_rig() as rig:
        outcome = await rig.run("charge")
    assert outcome.error is not None
    assert (outcome.error.name, calls) == ("LookupError", [])


async def test_a_middleware_gets_what_the_run_raised(start_rig: StartRig) -> None:
    @task(retry=ONCE)
    async def charge() -> None:
        raise ValueError("broke")

    @charge.middleware
    async def renames(next: Next) -> None:
        try:
            await next()
        except ValueError as error:
            raise LookupError("wrapped") from error

    async with start_rig() as rig:
        outcome = await rig.run("charge")
    assert outcome.error is not None
    assert outcome.error.name == "LookupError"


async def test_an_error_of_a_middleware_after_the_run_fails_the_attempt_and_catch_error_is_asked(
    start_rig: StartRig, calls: Calls
) -> None:
    @task(retry=SOON)
    async def charge() -> None: ...

    @charge.middleware
    async def breaks(next: Next, ctx: Context) -> None:
        await next()
        raise ConnectionError("cannot close")

    @charge.catch_error
    async def decides(error: BaseException) -> SkipRetrying:
        calls.add(type(error).__name__)
        return SkipRetrying()

    async with start_rig() as rig:
        run_id = await rig.trigger("charge")
        outcome = await rig.end_of(run_id)
        record = await rig.record(run_id)
    assert (outcome.status, record.attempt, calls) == (RunStatus.FAILED, 1, ["ConnectionError"])


@pytest.mark.parametrize(("count", "what"), [(0, "returned without calling next()"), (2, "called next() twice")])
async def test_a_middleware_must_call_next_once(start_rig: StartRig, count: int, what: str) -> None:
    @task(retry=ONCE)
    async def charge() -> None: ...

    @charge.middleware
    async def odd(next: Next) -> None:
        for _ in range(count):
            await next()

    async with start_rig() as rig:
        outcome = await rig.run("charge")
    assert outcome.error is not None
    assert what in outcome.error.message


async def test_an_error_of_a_final_hook_is_logged_and_the_next_is_called(start_rig: StartRig, calls: Calls) -> None:
    @task
    async def charge() -> None: ...

    @charge.on_success
    async def breaks() -> None:
        raise ValueError("mail is down")

    @charge.on_complete
    async def on_complete() -> None:
        calls.add("complete")

    async with start_rig() as rig:
        run_id = await rig.trigger("charge")
        outcome = await rig.end_of(run_id)
        await calls.until("complete")
        rig.runner.drain(None)
        await rig.runner._finished.wait()
        lines = await rig.messages_of(run_id)
    assert outcome.status is RunStatus.COMPLETED
    assert any('on_success "breaks"' in line and "mail is down" in line for line in lines)


async def test_a_middleware_that_fails_keeps_no_final_hook_from_being_called(start_rig: StartRig, calls: Calls) -> None:
    @task(retry=ONCE)
    async def charge() -> None: ...

    @charge.middleware
    async def broken(next: Next) -> None:
        raise ConnectionError("no database")

    @charge.on_failure
    async def on_failure(error: BaseException) -> None:
        calls.add(str(error))

    async with start_rig() as rig:
        await rig.run("charge")
        await calls.until("no database")


# ---- catch_error ----------------------------------------------------------------------------------------------------


async def test_catch_error_of_the_task_is_asked_before_that_of_all(start_rig: StartRig, calls: Calls) -> None:
    @tasks.catch_error
    async def generally(retry_delay: timedelta | None) -> SkipRetrying:
        calls.add("all")
        return SkipRetrying(LookupError("given up"))

    @task(retry=SOON)
    async def charge() -> None:
        raise ValueError("broke")

    @charge.catch_error
    def mine(retry: Retry) -> None:
        calls.add(f"mine {retry.max_attempts}")

    async with start_rig() as rig:
        outcome = await rig.run("charge")
    assert outcome.error is not None
    assert (calls, outcome.error.name) == (["mine 3", "all"], "LookupError")


@pytest.mark.parametrize(("decision", "attempts"), [(RetryAt("0s"), 3), (RetryWith(Retry(max_attempts=2, min_timeout="1ms")), 2)])
async def test_a_decision_says_when_and_the_engine_how_often(
    start_rig: StartRig, decision: RetryAt | RetryWith, attempts: int
) -> None:
    @task(retry=Retry(max_attempts=3, min_timeout="1h"), catch_error=lambda: decision)
    async def charge() -> None:
        raise ValueError("broke")

    async with start_rig() as rig:
        run_id = await rig.trigger("charge")
        await rig.end_of(run_id)
        assert (await rig.record(run_id)).attempt == attempts


async def test_catch_error_is_not_asked_about_what_is_never_tried_again(start_rig: StartRig, calls: Calls) -> None:
    @task(catch_error=lambda: calls.add("asked"))
    async def charge() -> None:
        raise AbortTaskRunError("stop")

    async with start_rig() as rig:
        await rig.run("charge")
    assert calls == []


@pytest.mark.parametrize("fault", ["raises", "returns"])
async def test_a_catch_error_that_goes_wrong_crashes_the_run(start_rig: StartRig, calls: Calls, fault: str) -> None:
    def decides() -> object:
        if fault == "raises":
            raise KeyError("code")
        return "later"

    @task(retry=SOON, catch_error=decides, on_failure=lambda error: calls.add(type(error).__name__))
    async def charge() -> None:
        raise ValueError("broke")

    async with start_rig() as rig:
        run_id = await rig.trigger("charge")
        outcome = await rig.end_of(run_id)
        assert (await rig.record(run_id)).attempt == 1
        await calls.until("KeyError" if fault == "raises" else "TypeError")
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code) == (RunStatus.CRASHED, ErrorCode.CATCH_ERROR)


# ---- waits ----------------------------------------------------------------------------------------------------------


async def test_hooks_are_called_around_waits_that_suspend(start_rig: StartRig, calls: Calls) -> None:
    @task
    async def patient() -> None:
        await wait.for_(seconds=0.001)
        await wait.for_("1h")
        calls.add("went on")

    @patient.on_wait
    async def on_wait(wait: WaitInfo) -> None:
        calls.add(f"waits {wait.kind}")

    @patient.on_resume
    def on_resume(wait: WaitInfo) -> None:
        calls.add(f"resumes {wait.kind}")

    async with start_rig() as rig:
        run_id = await rig.trigger("patient")
        await rig.saw(run_id, EventKind.WAITING)
        rig.clock.advance(timedelta(hours=1))
        await rig.end_of(run_id)
    assert calls == ["waits duration", "resumes duration", "went on"]


async def test_hooks_learn_what_is_waited_for(start_rig: StartRig, calls: Calls) -> None:
    seen: list[WaitInfo] = []

    @task
    async def child() -> None: ...

    def see(wait: WaitInfo) -> None:
        seen.append(wait)
        calls.add(wait.kind)

    @task(on_wait=see, on_resume=see)
    async def patient() -> None:
        await child.trigger_and_wait()
        await child.trigger_and_wait(idempotency_key="k")
        await wait.until(datetime(2100, 1, 1, tzinfo=UTC))

    async with start_rig() as rig:
        await rig.trigger("patient")
        await calls.until("duration")
    asked, over, keyed, keyed_over, until = seen
    assert asked == over
    assert (over.subject, keyed.subject) == ("child", "child")
    assert over.run_id is not None
    assert keyed.run_id is None
    assert keyed_over.run_id not in (None, over.run_id)
    assert (until.kind, until.until) == ("duration", datetime(2100, 1, 1, tzinfo=UTC))


async def test_a_replay_tells_of_the_wait_that_it_goes_on_after_and_of_no_other(start_rig: StartRig, calls: Calls) -> None:
    @task
    async def patient() -> None:
        await wait.for_("1h")
        await wait.for_("2h")

    @patient.on_wait
    async def on_wait() -> None:
        calls.add("waits" if "resumes" not in calls else "waits again")

    @patient.on_resume
    async def on_resume() -> None:
        calls.add("resumes")

    async with start_rig() as rig:
        run_id = await rig.trigger("patient")
        await rig.saw(run_id, EventKind.WAITING)
        rig.clock.advance(timedelta(hours=1))
        await rig.saw(run_id, EventKind.WAITING, times=2)
    async with start_rig() as rig:
        rig.clock.advance(timedelta(hours=2))
        await rig.end_of(run_id)
    assert calls == ["waits", "resumes", "waits again", "resumes"]


async def test_what_a_wait_hook_raises_is_raised_by_the_wait(start_rig: StartRig) -> None:
    @task
    async def patient() -> str:
        try:
            await wait.for_("1h")
        except PermissionError as error:
            return str(error)
        return "waited"

    @patient.on_wait
    async def refuses() -> None:
        raise PermissionError("not now")

    async with start_rig() as rig:
        outcome = await rig.run("patient")
    assert outcome.output == '"not now"'


async def test_a_hook_triggers_tasks_and_cannot_wait_for_them(start_rig: StartRig, calls: Calls) -> None:
    @task
    async def mail() -> None:
        calls.add("mailed")

    @task
    async def charge() -> None: ...

    @charge.on_success
    async def on_success() -> None:
        await mail.trigger()
        with pytest.raises(HookWaitError, match="trigger a task that waits"):
            await mail.trigger_and_wait()
        calls.add("refused")

    async with start_rig() as rig:
        await rig.run("charge")
        await calls.until("refused")
        await calls.until("mailed")


# ---- cancel ---------------------------------------------------------------------------------------------------------


async def test_a_cancelled_run_is_interrupted_when_its_on_cancel_has_ended(start_rig: StartRig, calls: Calls) -> None:
    @task
    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            calls.add("interrupted")

    @endless.on_cancel
    async def on_cancel(reason: str, signal: CancelSignal) -> None:
        calls.add(f"{reason}; {signal.reason}")

    async with start_rig() as rig:
        run_id = await rig.trigger("endless")
        await rig.saw(run_id, EventKind.STARTED)
        await rig.backend.cancel_runs([run_id], "no more")
        await calls.until("interrupted")
        await rig.saw(run_id, EventKind.CANCELLED)
    assert calls == ["no more; no more", "interrupted"]


async def test_a_cancelled_run_that_waits_is_leased_for_its_hooks_alone(start_rig: StartRig, calls: Calls) -> None:
    @task
    async def patient() -> None:
        calls.add("run")
        await wait.for_("1h")

    @patient.on_cancel
    async def on_cancel(reason: str) -> None:
        calls.add(reason)

    async with start_rig() as rig:
        run_id = await rig.trigger("patient")
        await rig.saw(run_id, EventKind.WAITING)
        await rig.backend.cancel_runs([run_id], "no more")
        await calls.until("no more")
    assert calls == ["run", "no more"]


async def test_hooks_of_a_timed_out_run_are_called(start_rig: StartRig, calls: Calls) -> None:
    @task(max_duration="50ms")
    async def slow() -> None:
        await asyncio.Event().wait()

    @slow.on_complete
    async def on_complete(result: Result[None]) -> None:
        assert isinstance(result, Err)
        calls.add(result.error.code)

    @slow.on_failure
    async def on_failure(error: BaseException) -> None:
        assert isinstance(error, RunFailedError)
        calls.add(error.status)

    async with start_rig() as rig:
        await rig.run("slow")
        await calls.until(ErrorCode.MAX_DURATION)
    assert calls == ["TIMED_OUT", ErrorCode.MAX_DURATION]


async def test_an_expired_run_has_its_hooks_called_and_never_its_code(start_rig: StartRig, calls: Calls) -> None:
    @task(ttl="1h", queue="closed")
    async def late() -> None:
        calls.add("run")

    @late.on_failure
    async def on_failure(error: RunFailedError) -> None:
        calls.add(error.status)

    async with start_rig() as rig:
        await rig.backend.change_limits([Pause(ref=LimitRef(kind=LimitKind.QUEUE, name="closed"))])
        run_id = await rig.trigger("late")
        rig.clock.advance(timedelta(hours=2))
        await rig.end_of(run_id)
        await calls.until("EXPIRED")
    assert calls == ["EXPIRED"]


async def test_hooks_that_outlast_a_drain_are_called_again_by_another_worker(start_rig: StartRig, calls: Calls) -> None:
    is_stuck = True

    @task
    async def charge() -> None:
        calls.add("run")

    @charge.on_success
    async def on_success() -> None:
        calls.add("hook")
        if is_stuck:
            await asyncio.Event().wait()

    async with start_rig() as rig:
        await rig.run("charge")
        await calls.until("hook")
    is_stuck = False
    async with start_rig() as rig:
        await calls.until("hook", count=2)
    assert calls == ["run", "hook", "hook"]


async def test_a_middleware_closes_what_it_holds_when_a_run_leaves_memory(start_rig: StartRig, calls: Calls) -> None:
    @task
    async def patient() -> None:
        await wait.for_("1h")

    @patient.middleware
    async def holds(next: Next) -> None:
        calls.add("open")
        try:
            await next()
        finally:
            calls.add("closed")

    async with start_rig() as rig:
        run_id = await rig.trigger("patient")
        await rig.saw(run_id, EventKind.WAITING)
    assert calls == ["open", "closed"]
    async with start_rig() as rig:
        rig.clock.advance(timedelta(hours=1))
        await rig.end_of(run_id)
    assert calls == ["open", "closed", "open", "closed"]


async def test_hooks_of_a_task_with_a_process_of_its_own_are_called_in_it(start_rig: StartRig, calls: Calls) -> None:
    @task(isolation="process")
    async def alone() -> None: ...

    @alone.on_success
    async def on_success() -> None:
        calls.add("hook")

    async with start_rig(is_solo=True) as rig:
        await rig.run("alone")
        await rig.supervision.until(Finished)
    assert calls == ["hook"]
