"""The `.sync` twins: in scripts, in threads of a run, and where they are refused."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading
from collections.abc import Callable

import pytest

from detent import BlockingCallError, RunCancelledError, idempotency_keys, runs, task, tasks, wait
from detent.sdk import blocking, portal
from detent.sdk.blocking import blocking as twin_of
from tests.sdk.fake_run import FakeRun, completed


class Namespace:
    """Something with coroutine methods."""

    label = "things"

    def __init__(self) -> None:
        self.threads: list[int] = []

    async def double(self, number: int, *, times: int = 1) -> int:
        """Double it."""
        self.threads.append(threading.get_ident())
        await asyncio.sleep(0)
        return number * 2**times

    async def fail(self) -> None:
        raise ValueError("boom")


@pytest.fixture(autouse=True)
def closed_portal() -> object:
    yield
    portal.close_portal()
    assert not [thread for thread in threading.enumerate() if thread.name == "detent-portal"]


def test_twin_returns_what_the_coroutine_returns() -> None:
    things = Namespace()
    double = twin_of(things.double)

    assert double(4, times=2) == 16
    assert double(4) == 8
    assert double.__name__ == "double"
    assert double.__doc__ == "Double it."
    assert len(set(things.threads)) == 1
    assert things.threads[0] != threading.get_ident()


def test_twin_raises_what_the_coroutine_raises() -> None:
    with pytest.raises(ValueError, match="boom"):
        twin_of(Namespace().fail)()


def test_threads_share_one_background_loop() -> None:
    things = Namespace()
    double = twin_of(things.double)
    callers = [threading.Thread(target=double, args=(number,)) for number in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert len(things.threads) == 5
    assert len(set(things.threads)) == 1


async def test_on_a_running_loop_the_async_call_is_named() -> None:
    @task
    async def charge(order: int) -> None: ...

    for call, name, instead in [
        (lambda: charge.sync.trigger(1), "charge.sync.trigger", "charge.trigger(…)"),
        (lambda: tasks.sync.trigger("charge"), "tasks.sync.trigger", "tasks.trigger(…)"),
        (lambda: runs.sync.retrieve("run_1"), "runs.sync.retrieve", "runs.retrieve(…)"),
        (runs.sync.list, "runs.sync.list", "runs.list(…)"),
        (lambda: wait.sync.for_(seconds=1), "wait.sync.for_", "wait.for_(…)"),
        (lambda: idempotency_keys.sync.reset("charge", "k"), "idempotency_keys.sync.reset", "idempotency_keys.reset(…)"),
    ]:
        with pytest.raises(BlockingCallError) as refused:
            call()
        assert str(refused.value) == (
            f"{name} is the blocking twin and would stop the running event loop; await {instead} instead"
        )


def test_bad_input_is_refused_in_the_calling_thread() -> None:
    @task
    async def charge(order: int) -> None: ...

    with pytest.raises(TypeError, match="unknown option 'dely'"):
        charge.sync.trigger(1, dely="1h")  # type: ignore[call-arg]


# ---- in a run's thread ----


async def in_thread(run: FakeRun, work: Callable[[], object]) -> object:
    own = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(None, own.run, work)


async def test_thread_of_a_run_calls_through_the_run(run: FakeRun) -> None:
    @task
    def parent(number: int) -> object:
        wait.sync.for_(seconds=3)
        return child.sync.call(number), child.sync.trigger_and_wait(number).ok

    @task
    async def child(number: int) -> int:
        return number

    run.answer = lambda request: completed(request, request.payload)

    assert await in_thread(run, lambda: parent(7)) == (7, True)
    assert [request.payload for request in run.triggered] == ["7", "7"]
    assert len(run.waits) == 1
    assert blocking._blocked == {}


async def test_cancelled_run_interrupts_a_blocked_thread(run: FakeRun) -> None:
    @task
    async def child(number: int) -> int:
        return number

    run.is_stuck = True
    blocked = asyncio.ensure_future(in_thread(run, lambda: child.sync.call(1)))
    await run.is_waiting.wait()
    run.signal.trip("cancelled by user")
    blocking.interrupt(run.context.run.id)

    with pytest.raises(RunCancelledError, match="was cancelled: cancelled by user"):
        await blocked
    assert blocking._blocked == {}


# ---- processes ----


def test_forked_child_makes_its_own_loop() -> None:
    double = twin_of(Namespace().double)
    assert double(1) == 2

    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if double(21) == 42 else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
