"""Why a run is not running: in every status a sentence, a code, and the facts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from detent.protocol.flow import Override, OverrideKey, Pause, Rate
from detent.protocol.ids import RunId
from detent.protocol.runs import WaitingReason
from tests.engine.stage import ENVIRONMENT, Stage, Worker, limit, limit_ref, queue, queue_ref, task


async def reason_of(stage: Stage, run_id: RunId) -> WaitingReason:
    reason = (await stage.run(run_id)).waiting_reason
    assert reason is not None
    return reason


async def limited(stage: Stage, **bounds: object) -> Worker:
    return await stage.worker(task("work", limits=("openai",)), limits=[limit("openai", **bounds)])


async def test_a_run_that_executes_or_is_over_waits_for_nothing(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    assert (await stage.run(lease.run_id)).waiting_reason is None
    await worker.succeed(lease)
    assert (await stage.run(lease.run_id)).waiting_reason is None


async def test_at_a_limit_it_names_the_limit_how_full_it_is_and_who_holds_it(stage: Stage) -> None:
    worker = await limited(stage, total=2)
    held = await stage.trigger_many(2)
    await worker.lease()
    reason = await reason_of(stage, await stage.trigger())
    assert (reason.code, reason.facts["limit"], reason.facts["taken"], reason.facts["allowed"]) == (
        "AT_LIMIT",
        "openai",
        "2",
        "2",
    )
    assert set(reason.facts["held_by"].split(", ")) == set(held)
    assert reason.text.startswith('limit "openai" is at 2 of 2, held by run_')


async def test_at_a_limit_held_by_very_many_it_names_some_and_counts_the_rest(stage: Stage) -> None:
    worker = await limited(stage, total=8)
    await stage.trigger_many(8)
    await worker.lease()
    assert (await reason_of(stage, await stage.trigger())).text.endswith("and 3 more")


async def test_a_cancelled_run_whose_code_goes_on_is_named_as_holder(stage: Stage) -> None:
    worker = await limited(stage, total=1)
    lease = await stage.leased(worker)
    await stage.engine.cancel_runs([lease.run_id], "enough")
    reason = await reason_of(stage, await stage.trigger())
    assert (reason.facts["taken"], reason.facts["held_by"]) == ("1", lease.run_id)


async def test_at_the_bound_of_a_key_it_names_the_key(stage: Stage) -> None:
    worker = await limited(stage, per_key=1)
    await stage.leased(worker, concurrency_key="a")
    reason = await reason_of(stage, await stage.trigger(concurrency_key="a"))
    assert (reason.code, reason.facts["concurrency_key"]) == ("AT_LIMIT", "a")
    assert reason.text.startswith('limit "openai" for key "a" is at 1 of 1')
    assert (await reason_of(stage, await stage.trigger(concurrency_key="b"))).code == "QUEUED"


async def test_at_the_limit_of_a_queue_it_names_the_queue(stage: Stage) -> None:
    worker = await stage.worker(task("work", queue="emails"), limits=[queue("emails", 1)])
    await stage.leased(worker)
    reason = await reason_of(stage, await stage.trigger())
    assert (reason.code, reason.facts["queue"]) == ("AT_LIMIT", "emails")


async def test_a_full_environment_is_a_reason_too(stage: Stage, worker: Worker) -> None:
    await stage.change(Override(ref=ENVIRONMENT, total=1))
    await stage.leased(worker)
    reason = await reason_of(stage, await stage.trigger())
    assert reason.code == "AT_LIMIT"
    assert reason.text.startswith("the environment is at 1 of 1")


async def test_several_obstacles_are_all_named(stage: Stage) -> None:
    limits = [limit("openai", total=1), limit("gpu", total=1)]
    worker = await stage.worker(task("work", limits=("openai", "gpu")), limits=limits)
    await stage.leased(worker)
    text = (await reason_of(stage, await stage.trigger())).text
    assert 'limit "gpu" is at 1 of 1' in text
    assert 'limit "openai" is at 1 of 1' in text


@pytest.mark.parametrize("what", ["queue", "limit", "environment"])
async def test_a_pause_is_named_before_all_else(stage: Stage, what: str) -> None:
    worker = await limited(stage, total=1)
    await stage.leased(worker)
    ref = {"queue": queue_ref("task/work"), "limit": limit_ref("openai"), "environment": ENVIRONMENT}[what]
    paused = await stage.change(Pause(ref=ref))
    reason = await reason_of(stage, await stage.trigger())
    assert paused.paused_at is not None
    assert (reason.code, reason.facts["paused_at"]) == ("PAUSED", paused.paused_at.isoformat())


async def test_a_rate_says_until_when(stage: Stage) -> None:
    worker = await limited(stage, rate=Rate(starts=1, period=60.0))
    await stage.leased(worker)
    waiting = await stage.trigger()
    assert await worker.lease() == []
    reason = await reason_of(stage, waiting)
    ((opens_at,),) = await stage.query("select opens_at from detent.gates where scope = 'rate'")
    assert (reason.code, reason.facts["until"], reason.facts["period"]) == (
        "RATE_LIMITED",
        opens_at.isoformat(),
        "60.0",
    )


async def test_a_blocked_key_says_so(stage: Stage) -> None:
    await limited(stage, per_key=5)
    await stage.change(OverrideKey(ref=limit_ref("openai"), concurrency_key="a", per_key=0))
    reason = await reason_of(stage, await stage.trigger(concurrency_key="a"))
    assert (reason.code, reason.facts["allowed"]) == ("AT_LIMIT", "0")


async def test_a_delayed_run_says_until_when(stage: Stage, worker: Worker) -> None:
    run_id = await stage.trigger(delay=timedelta(hours=1))
    record = await stage.run(run_id)
    assert record.waiting_reason is not None
    assert record.due_at is not None
    assert (record.waiting_reason.code, record.waiting_reason.facts["due_at"]) == ("DELAYED", record.due_at.isoformat())


async def test_a_run_before_its_next_attempt_says_when_that_is(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.fail(lease, retry_in=timedelta(hours=1))
    assert (await reason_of(stage, lease.run_id)).code == "RETRY"


async def test_a_run_of_a_task_without_a_worker_says_so(stage: Stage, worker: Worker) -> None:
    run_id = await stage.trigger()
    await worker.end()
    reason = await reason_of(stage, run_id)
    assert (reason.code, reason.facts["task"]) == ("NO_LIVE_WORKER", "work")


async def test_a_run_behind_others_says_in_which_queue(stage: Stage, worker: Worker) -> None:
    reason = await reason_of(stage, await stage.trigger())
    assert (reason.code, reason.facts["queue"]) == ("QUEUED", "task/work")


async def test_a_run_that_waits_says_for_what(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.sleep(lease)
    assert (await reason_of(stage, lease.run_id)).code == "WAITS_FOR_TIME"


async def test_a_run_that_waits_for_a_child_names_it(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    answer = await worker.call(lease)
    reason = await reason_of(stage, lease.run_id)
    assert reason.code == "WAITS_FOR_RUN"
    assert answer.triggered.run_id in reason.text  # type: ignore[union-attr]


async def test_a_resumed_run_without_room_says_what_it_lacks(stage: Stage) -> None:
    worker = await limited(stage, total=1)
    lease = await stage.leased(worker)
    await worker.sleep(lease, seconds=0.1)
    await stage.leased(worker)
    await stage.a_moment_passes()
    assert (await reason_of(stage, lease.run_id)).code == "AT_LIMIT"
