"""Batches from inside a run: items that cannot be triggered, and keys over several attempts."""

from __future__ import annotations

from detent import BatchTriggerError, Context, Retry, task, tasks
from tests.worker.conftest import StartRig

AT_ONCE = Retry(max_attempts=2, min_timeout="1ms", max_timeout="1ms")


async def test_a_child_that_cannot_be_triggered_fails_alone(start_rig: StartRig) -> None:
    @task
    async def child(number: int) -> int:
        return number

    @task
    async def parent() -> list[str]:
        done = await tasks.batch_trigger_and_wait("child", [0, "one", 2])
        return [str(run.output) if run.ok else run.error.code for run in done.runs]

    async with start_rig() as rig:
        outcome = await rig.run("parent")
    assert outcome.output == '["0","BATCH_ITEM_COULD_NOT_TRIGGER","2"]'


async def test_a_batch_of_which_no_child_can_be_triggered_is_an_error(start_rig: StartRig) -> None:
    @task
    async def child(number: int) -> int:
        return number

    @task
    async def parent() -> str:
        try:
            await tasks.batch_trigger_and_wait("child", ["zero", "one"])
        except BatchTriggerError as error:
            return error.cause
        return "nothing was raised"

    async with start_rig() as rig:
        outcome = await rig.run("parent")
    assert outcome.output is not None
    assert "none of its 2 items could be triggered" in outcome.output


async def test_a_retry_gets_the_batch_of_its_key(start_rig: StartRig) -> None:
    made: list[tuple[str, bool, list[str]]] = []

    @task
    async def child(number: int) -> int:
        return number

    @task(retry=AT_ONCE)
    async def parent(ctx: Context) -> int:
        batch = await child.batch_trigger([1, 2], idempotency_key="all of them")
        made.append((batch.id, batch.is_cached, [handle.id for handle in batch.runs]))
        if ctx.attempt.number == 1:
            raise ValueError("not yet")
        return len(batch.runs)

    async with start_rig() as rig:
        outcome = await rig.run("parent")
    assert outcome.output == "2"
    (first_id, first_cached, first_runs), (second_id, second_cached, second_runs) = made
    assert (first_id, first_runs) == (second_id, second_runs)
    assert (first_cached, second_cached) == (False, True)


async def test_a_retry_that_waits_gets_the_runs_of_its_key_in_a_batch_of_its_own(start_rig: StartRig) -> None:
    executed: list[int] = []

    @task
    async def child(number: int) -> int:
        executed.append(number)
        return number * 2

    @task(retry=AT_ONCE)
    async def parent(ctx: Context) -> list[int]:
        done = await child.batch_trigger_and_wait([1, 2], idempotency_key="all of them")
        if ctx.attempt.number == 1:
            raise ValueError("not yet")
        return [run.unwrap() for run in done.runs]

    async with start_rig() as rig:
        outcome = await rig.run("parent")
    assert outcome.output == "[2,4]"
    assert sorted(executed) == [1, 2]


async def test_more_results_than_a_page_come_in_order(start_rig: StartRig) -> None:
    @task
    async def child(number: int) -> int:
        return number

    @task
    async def parent() -> bool:
        done = await child.batch_trigger_and_wait(iter(range(1_201)))
        return [run.unwrap() for run in done.runs] == list(range(1_201))

    async with start_rig() as rig:
        outcome = await rig.run("parent")
    assert outcome.output == "true"
