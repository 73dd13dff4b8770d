"""Runs as they are listed, watched, and explained."""

from __future__ import annotations

from datetime import timedelta

import pytest

from detent.protocol import ids
from detent.protocol.execution import Isolation
from detent.protocol.idempotency import Idempotency
from detent.protocol.runs import RunOutcome
from detent.protocol.selection import RunSelection
from detent.protocol.status import RunStatus
from tests.database import Clock
from tests.engine.stage import SOON, Stage, Worker, chunk, queue, registration, request, task

# ---- lists


async def test_runs_are_listed_newest_first_live_and_past_alike(stage: Stage, worker: Worker) -> None:
    made = [await stage.trigger() for _ in range(6)]
    await worker.succeed(*(await worker.lease())[::2])
    assert [run.id for run in await stage.engine.list_runs(RunSelection())] == made[::-1]


async def test_a_list_is_read_in_pages(stage: Stage, worker: Worker) -> None:
    made = [answer.run_id for answer in await stage.engine.trigger([request() for _ in range(25)])]
    await worker.succeed(*(await worker.lease())[:12])
    pages, before = [], None
    while page := await stage.engine.list_runs(RunSelection(), before=before, limit=10):
        pages.append([run.id for run in page])
        before = pages[-1][-1]
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [run_id for page in pages for run_id in page] == made[::-1]


async def test_runs_are_filtered_by_status(stage: Stage, worker: Worker) -> None:
    done = await stage.leased(worker)
    await worker.succeed(done)
    held = await stage.leased(worker)
    queued, unknown = await stage.trigger(), await stage.trigger("unknown")

    async def found(*statuses: RunStatus) -> set[str]:
        return {run.id for run in await stage.engine.list_runs(RunSelection(statuses=statuses))}

    assert await found(RunStatus.COMPLETED) == {done.run_id}
    assert await found(RunStatus.COMPLETED, RunStatus.DEQUEUED) == {done.run_id, held.run_id}
    assert await found(RunStatus.QUEUED) == {queued}
    assert await found(RunStatus.PENDING_VERSION) == {unknown}
    assert await found(RunStatus.PENDING_VERSION, RunStatus.COMPLETED) == {unknown, done.run_id}
    assert await found(RunStatus.PENDING_VERSION, RunStatus.QUEUED) == {unknown, queued}


async def test_runs_are_filtered_by_what_they_are(stage: Stage, worker: Worker, clock: Clock) -> None:
    plain = await stage.trigger()
    mail = await stage.trigger("mail", tags=("user:7", "eu"))
    batch_id = ids.new_batch_id()
    await stage.engine.trigger_batch(chunk(batch_id, [0], total=1))
    parent, _ = await worker.lease()
    child = (await worker.call(parent, wait=False)).triggered.run_id
    moment = clock.now()
    clock.advance(timedelta(days=1))
    late = await stage.trigger()

    async def found(limit: int = 25, **wanted: object) -> set[str]:
        return {run.id for run in await stage.engine.list_runs(RunSelection(**wanted), limit=limit)}

    item = ids.item_run_id(batch_id, 0)
    assert await found(task_ids=("mail", "nothing")) == {mail}
    assert await found(tags=("eu",)) == await found(tags=("eu", "user:8")) == {mail}
    assert await found(tags=("us", "user:8")) == set()
    assert await found(batch_id=batch_id) == {item}
    assert await found(parent_run_id=parent.run_id) == {child}
    assert await found(created_after=moment) == {late}
    assert await found(created_before=moment) == {plain, mail, item, child}
    assert await found(created_before=moment, task_ids=("work",), limit=1) == {child}


@pytest.mark.parametrize("is_over", [False, True])
async def test_runs_are_filtered_by_where_they_execute_and_why_they_are_there(stage: Stage, is_over: bool) -> None:
    worker = await stage.worker("work", task("large", machine="large-2x"), limits=[queue("emails")])
    other = await stage.trigger(queue="emails", machine="micro", is_test=True)
    await worker.lease_one()
    large = await stage.trigger("large")
    schedule_id = ids.new_schedule_id()
    lease = await worker.lease_one()
    made = (ids.decode("sched", schedule_id), ids.decode("run", large))
    await stage.query("update detent.inputs set schedule_id = %s where run_id = %s", *made)
    if is_over:
        await worker.succeed(lease)

    async def found(**wanted: object) -> set[str]:
        return {run.id for run in await stage.engine.list_runs(RunSelection(**wanted))}

    assert await found(queues=("task/large",)) == await found(schedule_id=schedule_id) == await found(is_test=False) == {large}
    assert await found(queues=("emails",)) == await found(is_test=True) == await found(machines=("micro",)) == {other}
    assert await found(machines=("large-2x",)) == {large}
    assert await found(machines=("large-2x", "micro")) == await found(versions=(worker.version, "none")) == {large, other}
    assert await found(versions=("none",)) == await found(machines=("small-1x",)) == set()


async def test_a_run_pinned_to_a_version_is_listed_with_those_of_it(stage: Stage, worker: Worker) -> None:
    pinned = await stage.trigger(version=worker.version)
    await stage.trigger()
    listed = await stage.engine.list_runs(RunSelection(versions=(worker.version,)))
    assert [(run.id, run.version) for run in listed] == [(pinned, worker.version)]


async def test_runs_made_by_a_clock_that_is_ahead_are_not_missed(stage: Stage, worker: Worker) -> None:
    """Ids are made by callers, and tell the time by their clocks."""
    ((late,),) = await stage.query("select detent.first_id(now() + interval '23 hours')")
    run_id = await stage.trigger(run_id=ids.encode("run", late))
    soon = (await stage.run(run_id)).created_at + timedelta(seconds=1)
    assert [run.id for run in await stage.engine.list_runs(RunSelection(created_before=soon))] == [run_id]


async def test_unknown_runs_are_read_as_none_in_their_place(stage: Stage) -> None:
    run_id = await stage.trigger()
    found = await stage.engine.retrieve_runs([ids.new_run_id(), run_id, ids.new_run_id(), run_id])
    assert [run and run.id for run in found] == [None, run_id, None, run_id]
    assert await stage.engine.retrieve_runs([]) == []


# ---- watching


async def test_watching_tells_the_outcome_of_what_is_over(stage: Stage, worker: Worker) -> None:
    done = await stage.leased(worker)
    await worker.succeed(done, output="5")
    live = await stage.trigger()
    outcome = RunOutcome(run_id=done.run_id, task_id="work", status=RunStatus.COMPLETED, output="5")
    assert await stage.engine.watch_runs([live, done.run_id, ids.new_run_id()]) == [None, outcome, None]


async def test_a_run_that_will_be_retried_is_not_over(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.fail(lease, retry_in=SOON)
    assert await stage.engine.watch_runs([lease.run_id]) == [None]


# ---- versions


async def test_a_run_of_a_task_that_nobody_registered_waits_for_a_version(stage: Stage) -> None:
    run_id = await stage.trigger("mail")
    run = await stage.run(run_id)
    assert run.status is RunStatus.PENDING_VERSION
    assert run.waiting_reason.code == "TASK_NEVER_REGISTERED"
    assert run.waiting_reason.facts == {"task": "mail"}
    assert '"mail"' in run.waiting_reason.text


async def test_registering_its_task_releases_a_run_that_waited_for_it(stage: Stage) -> None:
    queued = await stage.trigger("mail")
    elsewhere = await stage.trigger("mail", queue="slow", concurrency_key="k")
    worker = await stage.worker("mail", limits=[queue("slow")])
    assert await stage.statuses(queued, elsewhere) == [RunStatus.QUEUED] * 2
    assert {lease.run_id for lease in await worker.lease()} == {queued, elsewhere}


async def test_equal_tasks_are_one_version_and_others_are_another(stage: Stage) -> None:
    names = [await stage.engine.register_worker(registration(*tasks)) for tasks in (("a", "b"), ("b", "a"), ("a",))]
    assert names[0] == names[1] != names[2]
    day, number = names[0].split(".")
    assert (len(day), number) == (8, "1")
    assert names[2] == f"{day}.2"


async def test_a_version_may_have_a_name_of_its_own(stage: Stage) -> None:
    assert await stage.engine.register_worker(registration("a", version="v1")) == "v1"
    assert await stage.engine.register_worker(registration("a", version="v1")) == "v1"


async def test_a_name_given_by_hand_does_not_stop_the_next_version_from_being_named(stage: Stage) -> None:
    first = await stage.engine.register_worker(registration("a"))
    taken = first.split(".")[0] + ".3"
    await stage.engine.register_worker(registration("b", version=taken))
    names = [await stage.engine.register_worker(registration(task_id)) for task_id in ("c", "d")]
    assert len({first, taken, *names}) == 4


async def test_a_name_registered_with_other_tasks_means_those_from_then_on(stage: Stage) -> None:
    await stage.worker("a", "b", version="v1")
    worker = await stage.worker("b", "c", version="v1")
    assert [task.task_id for task in await stage.engine.list_tasks()] == ["b", "c"]
    a, b, c = [await stage.trigger(task_id) for task_id in "abc"]
    assert {lease.run_id for lease in await worker.lease()} == {b, c}
    assert await stage.status(a) is RunStatus.PENDING_VERSION


async def test_tasks_are_listed_as_their_newest_version_has_them(stage: Stage) -> None:
    await stage.worker(task("a", description="old"), "b")
    newest = await stage.worker(task("a", description="new", isolation=Isolation.THREAD, payload_schema="{}"))
    a, b = await stage.engine.list_tasks()
    assert (a.task_id, a.description, a.isolation, a.payload_schema) == ("a", "new", Isolation.THREAD, "{}")
    assert (a.version, a.file_path, a.queue) == (newest.version, "tasks/a.py", "task/a")
    assert (b.task_id, b.has_live_worker) == ("b", True)


async def test_a_task_has_a_live_worker_while_one_renews(stage: Stage, worker: Worker) -> None:
    assert (await stage.engine.list_tasks())[0].has_live_worker
    await stage.query("update detent.sessions set beat_at = clock_timestamp() - interval '20 seconds'")
    assert not (await stage.engine.list_tasks())[0].has_live_worker
    await worker.renew()
    assert (await stage.engine.list_tasks())[0].has_live_worker
    await worker.end()
    assert not (await stage.engine.list_tasks())[0].has_live_worker


# ---- why a run is not running


async def reason(stage: Stage, run_id: str) -> tuple[str, str]:
    run = await stage.run(run_id)
    assert run.waiting_reason is not None
    return run.waiting_reason.code, run.waiting_reason.text


async def test_a_queued_run_says_what_it_is_queued_behind(stage: Stage, worker: Worker) -> None:
    code, text = await reason(stage, await stage.trigger())
    assert (code, '"task/work"' in text) == ("QUEUED", True)


async def test_a_queued_run_says_that_no_worker_lives(stage: Stage, worker: Worker) -> None:
    await worker.end()
    assert (await reason(stage, await stage.trigger()))[0] == "NO_LIVE_WORKER"


async def test_a_delayed_run_and_one_that_will_be_retried_say_when(stage: Stage, worker: Worker) -> None:
    delayed = await stage.trigger(delay=SOON)
    lease = await stage.leased(worker)
    await worker.fail(lease, retry_in=SOON)
    for run_id, code in ((delayed, "DELAYED"), (lease.run_id, "RETRY")):
        run = await stage.run(run_id)
        assert run.waiting_reason.code == code
        assert run.waiting_reason.facts == {"due_at": run.due_at.isoformat()}


async def test_a_suspect_says_that_it_starts_alone(stage: Stage, worker: Worker) -> None:
    lease = await stage.leased(worker)
    await worker.end(suspects=(lease.run_id,))
    await stage.session(worker.version)
    assert (await reason(stage, lease.run_id))[0] == "STARTS_ALONE"


async def test_a_suspended_run_says_what_for(stage: Stage, worker: Worker) -> None:
    sleeper, parent, author = [await stage.leased(worker) for _ in range(3)]
    await worker.sleep(sleeper)
    child = (await worker.call(parent)).triggered.run_id
    batch_id, _ = await worker.batch(author, 2)
    assert (await reason(stage, sleeper.run_id))[0] == "WAITS_FOR_TIME"
    code, text = await reason(stage, parent.run_id)
    assert (code, child in text, '"work"' in text) == ("WAITS_FOR_RUN", True, True)
    code, text = await reason(stage, author.run_id)
    assert (code, batch_id in text) == ("WAITS_FOR_BATCH", True)


async def test_a_run_that_waits_for_much_names_the_first_three(stage: Stage, worker: Worker) -> None:
    parent = await stage.leased(worker)
    for i in range(5):
        await worker.sleep(parent, str(i))
    assert (await reason(stage, parent.run_id))[1].endswith(" and 2 more")


@pytest.mark.parametrize("is_over", [False, True])
async def test_a_run_that_executes_or_is_over_has_no_reason(stage: Stage, worker: Worker, is_over: bool) -> None:
    lease = await stage.leased(worker, idempotency=Idempotency(key="k", user_key="k", scope="run"))
    if is_over:
        await worker.succeed(lease)
    assert (await stage.run(lease.run_id)).waiting_reason is None
