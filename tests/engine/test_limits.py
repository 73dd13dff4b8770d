"""How many run at once: queues, limits in total and per key, the environment; overrides and pauses."""

from __future__ import annotations

from datetime import timedelta

import pytest

from detent.engine.backend import connect
from detent.protocol.flow import LimitKind, LimitRecord, LimitRef, Override, OverrideKey, Pause, Reset, Resume
from detent.protocol.leases import Lease
from detent.protocol.refusal import Refused
from detent.protocol.status import RunStatus
from tests.database import Clock
from tests.engine.stage import (
    ENVIRONMENT,
    Stage,
    Worker,
    holder,
    limit,
    limit_ref,
    queue,
    queue_ref,
    request,
    task,
)

INLINE = "task/work"
REFS = {
    "queue": queue_ref("emails"),
    "limit": limit_ref("openai"),
    "environment": ENVIRONMENT,
}


async def bounded(stage: Stage, *limits: str, **bounds: int) -> Worker:
    """A worker whose task `work` holds limits of the same bounds."""
    names = limits or ("openai",)
    return await stage.worker(task("work", limits=names), limits=[limit(name, **bounds) for name in names])


def tasks_of(leases: list[Lease]) -> list[str]:
    return [lease.task_id for lease in leases]


# ---- queues


async def test_a_queue_lets_so_many_runs_without_a_key_execute(stage: Stage) -> None:
    worker = await stage.worker(task("work", queue="emails"), limits=[queue("emails", 2)])
    made = await stage.trigger_many(5)
    first = await worker.lease()
    assert [lease.run_id for lease in first] == made[:2]
    assert await worker.lease() == []
    await worker.succeed(first[0])
    assert [lease.run_id for lease in await worker.lease()] == made[2:3]


async def test_a_queue_lets_so_many_runs_of_each_key_execute(stage: Stage) -> None:
    worker = await stage.worker(task("work", queue="emails"), limits=[queue("emails", 2)])
    for key in ("a", "b", None):
        await stage.trigger_many(3, concurrency_key=key)
    leases = await worker.lease()
    assert sorted(str(lease.concurrency_key) for lease in leases) == ["None", "None", "a", "a", "b", "b"]
    assert await worker.lease() == []
    await worker.succeed(*(lease for lease in leases if lease.concurrency_key == "b"))
    assert [lease.concurrency_key for lease in await worker.lease()] == ["b"]


async def test_tasks_share_the_limit_of_the_queue_they_share(stage: Stage) -> None:
    worker = await stage.worker(*(task(name, queue="emails") for name in "ab"), limits=[queue("emails", 1)])
    await stage.trigger_many(2, "a")
    await stage.trigger_many(2, "b")
    order = []
    while leases := await worker.lease():
        (lease,) = leases
        order.append(lease.task_id)
        await worker.succeed(lease)
    assert order == ["a", "a", "b", "b"]


async def test_a_queue_given_at_the_trigger_bounds_the_run_instead(stage: Stage) -> None:
    worker = await stage.worker("work", limits=[queue("slow", 1)])
    await stage.trigger_many(2, queue="slow")
    await stage.trigger_many(2)
    assert sorted(lease.queue for lease in await worker.lease()) == ["slow", "task/work", "task/work"]


@pytest.mark.parametrize("where", ["queue", "total", "per_key"])
async def test_a_limit_of_nothing_lets_nothing_start(stage: Stage, where: str) -> None:
    declared = [queue("emails", 0), limit("openai")] if where == "queue" else [limit("openai", **{where: 0})]
    worker = await stage.worker(task("work", queue="emails", limits=("openai",)), limits=declared)
    await stage.trigger_many(2)
    await stage.trigger_many(2, concurrency_key="a")
    assert await worker.lease() == []


# ---- limits


async def test_a_total_bounds_all_keys_together_and_a_bound_per_key_each(stage: Stage) -> None:
    worker = await bounded(stage, total=5, per_key=2)
    for key in "abc":
        await stage.trigger_many(4, concurrency_key=key)
    leases = await worker.lease()
    assert len(leases) == 5
    assert all(sum(lease.concurrency_key == key for lease in leases) <= 2 for key in "abc")


async def test_runs_without_a_key_share_one_pool_of_a_bound_per_key(stage: Stage) -> None:
    worker = await bounded(stage, per_key=2)
    await stage.trigger_many(4)
    await stage.trigger_many(4, concurrency_key="a")
    assert sorted(str(lease.concurrency_key) for lease in await worker.lease()) == ["None", "None", "a", "a"]


async def test_a_run_takes_a_slot_in_all_its_limits_or_in_none(stage: Stage) -> None:
    wide = task("wide", limits=("task/wide", "openai", "gpu"))
    limits = [limit("task/wide", total=9), limit("openai", total=2), limit("gpu", total=1)]
    worker = await stage.worker(wide, task("openai", limits=("openai",)), limits=limits)
    await stage.trigger_many(3, "wide")
    assert tasks_of(await worker.lease()) == ["wide"]
    # The second one has room in two of three: had it kept a slot there, only one more could start.
    await stage.trigger_many(2, "openai")
    assert tasks_of(await worker.lease()) == ["openai"]
    assert (await taken(stage, "openai"), await taken(stage, "gpu"), await taken(stage, "task/wide")) == (2, 1, 1)


async def test_names_given_at_the_trigger_replace_the_named_limits_and_the_inline_one_stays(stage: Stage) -> None:
    limits = [limit(INLINE, total=3), limit("openai", total=1), limit("gpu", total=1)]
    worker = await stage.worker(task("work", limits=(INLINE, "openai")), limits=limits)
    await stage.trigger_many(2, limits=("gpu",))
    await stage.trigger_many(1)
    assert len(await worker.lease()) == 2
    assert (await taken(stage, "openai"), await taken(stage, "gpu"), await taken(stage, INLINE)) == (1, 1, 2)


async def test_no_names_given_at_the_trigger_leave_only_the_inline_limit(stage: Stage) -> None:
    limits = [limit(INLINE, total=3), limit("openai", total=1)]
    worker = await stage.worker(task("work", limits=(INLINE, "openai")), limits=limits)
    await stage.trigger_many(5, limits=())
    assert len(await worker.lease()) == 3
    assert await taken(stage, "openai") == 0


async def test_limits_named_in_opposite_orders_are_the_same(stage: Stage) -> None:
    limits = [limit("gpu", total=1), limit("openai", total=1)]
    worker = await stage.worker("work", limits=limits)
    await stage.trigger(limits=("gpu", "openai"))
    await stage.trigger(limits=("openai", "gpu"))
    (lease,) = await worker.lease()
    await worker.succeed(lease)
    assert len(await worker.lease()) == 1


async def test_an_environment_bounds_everything_in_it(stage: Stage) -> None:
    worker = await stage.worker("work", task("other", queue="emails"))
    await stage.change(Override(ref=ENVIRONMENT, total=3))
    await stage.trigger_many(2)
    await stage.trigger_many(2, "other", concurrency_key="a")
    leases = await worker.lease()
    assert len(leases) == 3
    await worker.succeed(*leases)
    assert len(await worker.lease()) == 1


# ---- a slot is held by what executes


@pytest.mark.parametrize("ending", ["succeed", "fail", "give_up", "hand_back"])
async def test_a_run_that_does_not_execute_any_more_gives_its_slot_back(stage: Stage, ending: str) -> None:
    worker = await bounded(stage, "openai", "gpu", total=1)
    lease = await stage.leased(worker)
    other = await stage.trigger(priority=99.0)
    await getattr(worker, ending)(lease)
    assert [each.run_id for each in await worker.lease()] == [other]


async def test_a_run_that_waits_gives_its_slot_back_and_must_get_one_again(stage: Stage, clock: Clock) -> None:
    worker = await bounded(stage, total=1)
    first = await stage.leased(worker)
    await worker.sleep(first, minutes=1)
    second, third = await stage.leased(worker), await stage.trigger()
    clock.advance(timedelta(minutes=1))
    await stage.tick()
    assert await worker.lease() == []
    assert await stage.status(first.run_id) is RunStatus.QUEUED
    await worker.succeed(second)
    resumed = await worker.lease_one()
    assert (resumed.run_id, resumed.is_resumed) == (first.run_id, True)
    await worker.succeed(resumed)
    assert (await worker.lease_one()).run_id == third


async def test_a_run_that_is_tried_again_gives_its_slot_back_until_then(stage: Stage, clock: Clock) -> None:
    worker = await bounded(stage, total=1)
    first = await stage.leased(worker)
    await worker.fail(first, retry_in=timedelta(minutes=1))
    second = await stage.leased(worker)
    clock.advance(timedelta(minutes=1))
    await stage.tick()
    assert await worker.lease() == []
    await worker.succeed(second)
    assert (await worker.lease_one()).attempt == 2


async def test_the_slots_of_a_worker_that_dies_are_free(stage: Stage) -> None:
    worker = await bounded(stage, total=2)
    await stage.trigger_many(3)
    assert len(await worker.lease()) == 2
    await worker.end(is_lost=True)
    heir = await stage.session(worker.version)
    assert len(await heir.lease()) == 2


async def test_the_slots_of_a_lost_reply_are_free_once_the_session_says_what_it_holds(stage: Stage) -> None:
    worker = await bounded(stage, total=1)
    lost = await stage.leased(worker)
    await worker.renew(lost)
    await stage.query("update detent.runs set leased_at = leased_at - interval '1 h'")
    assert (await worker.renew()).lost == ()
    assert (await worker.lease_one()).run_id == lost.run_id


async def test_a_cancelled_run_keeps_its_slot_until_its_code_has_ended(stage: Stage) -> None:
    worker = await bounded(stage, total=1)
    lease = await stage.leased(worker)
    await stage.trigger()
    await stage.engine.cancel_runs([lease.run_id], "enough")
    assert await worker.lease() == []
    await stage.engine.end_cancelled([holder(lease)])
    assert len(await worker.lease()) == 1


async def test_a_run_that_timed_out_keeps_its_slot_until_its_code_has_ended(stage: Stage) -> None:
    worker = await bounded(stage, total=1)
    lease = await stage.leased(worker)
    await stage.trigger()
    await worker.time_out(lease)
    assert await worker.lease() == []
    await stage.engine.end_cancelled([holder(lease)])
    assert len(await worker.lease()) == 1


async def test_the_slots_of_code_that_ends_with_its_process_are_free(stage: Stage) -> None:
    worker = await bounded(stage, total=1)
    lease = await stage.leased(worker)
    await stage.trigger()
    await stage.engine.cancel_runs([lease.run_id], "enough")
    await worker.end()
    assert len(await (await stage.session(worker.version)).lease()) == 1


async def test_a_run_cancelled_in_the_queue_leaves_the_room_to_others(stage: Stage) -> None:
    """The slot that is given back goes to nobody in the lane of the cancelled one."""
    worker = await stage.worker(*(task(name, limits=("db",)) for name in "ab"), limits=[limit("db", total=1)])
    lease = await stage.leased(worker, "a")
    cancelled, other = await stage.trigger("a"), await stage.trigger("b")
    assert await worker.lease() == []
    await stage.engine.cancel_runs([cancelled], "enough")
    await worker.succeed(lease)
    assert [each.run_id for each in await worker.lease()] == [other]


async def test_room_that_nobody_can_use_is_left_to_others(stage: Stage) -> None:
    """What waits longest has no worker."""
    limits = [limit("db", total=1)]
    one = await stage.worker(task("a", limits=("db",)), limits=limits)
    two = await stage.worker(task("b", limits=("db",)), limits=limits)
    lease = await stage.leased(one, "a")
    await stage.trigger("a")
    other = await stage.trigger("b")
    assert await one.lease() == await two.lease() == []
    await one.succeed(lease)
    await one.end()
    assert [each.run_id for each in await two.lease()] == [other]


async def test_room_that_one_kind_of_run_cannot_use_is_left_to_another(stage: Stage) -> None:
    limits = [limit("db", total=1)]
    both = [task("a", limits=("db",)), task("b", limits=("db",))]
    worker = await stage.worker(*both, task("c"), limits=limits)
    lease = await stage.leased(worker, "a")
    await stage.trigger("a")
    other = await stage.trigger("b")
    assert await worker.lease() == []
    narrow = await stage.worker(task("b", limits=("db",)), limits=limits)
    await worker.succeed(lease)
    assert [each.run_id for each in await narrow.lease()] == [other]


# ---- changes while runs execute


async def test_a_limit_lowered_below_what_runs_waits_for_them(stage: Stage) -> None:
    worker = await bounded(stage, total=3)
    await stage.trigger_many(6)
    leases = await worker.lease()
    await stage.change(Override(ref=limit_ref("openai"), total=1))
    for lease in leases[:2]:
        await worker.succeed(lease)
        assert await worker.lease() == []
    await worker.succeed(leases[2])
    assert len(await worker.lease()) == 1


async def test_a_limit_that_is_raised_lets_more_start_at_once(stage: Stage) -> None:
    worker = await bounded(stage, total=1)
    await stage.trigger_many(6)
    assert len(await worker.lease()) == 1
    await stage.change(Override(ref=limit_ref("openai"), total=3))
    assert len(await worker.lease()) == 2
    await stage.change(Override(ref=limit_ref("openai"), total=None))
    assert len(await worker.lease()) == 3


async def test_a_limit_declared_while_runs_execute_counts_them(stage: Stage) -> None:
    old = await stage.worker("work")
    await stage.trigger_many(4)
    leases = await old.lease(**{"async": 2})
    new = await bounded(stage, total=2)
    assert await new.lease() == []
    await old.succeed(leases[0])
    assert len(await new.lease()) == 1


async def test_a_limit_that_code_drops_bounds_nothing_any_more(stage: Stage) -> None:
    worker = await bounded(stage, total=1)
    await stage.trigger_many(3)
    assert len(await worker.lease()) == 1
    assert await worker.lease() == []
    free = await stage.worker("work")
    assert len(await free.lease()) == 2


async def test_an_override_survives_a_registration_which_changes_only_the_base(stage: Stage) -> None:
    await bounded(stage, total=1)
    await stage.change(Override(ref=limit_ref("openai"), total=2))
    worker = await bounded(stage, total=5)
    await stage.trigger_many(9)
    assert len(await worker.lease()) == 2
    record = await stage.change(Reset(ref=limit_ref("openai")))
    assert (record.total.base, record.total.override, record.total.current) == (5, None, 5)
    assert len(await worker.lease()) == 3


@pytest.mark.parametrize("ref", REFS.values(), ids=REFS)
async def test_a_reset_without_an_override_is_refused(stage: Stage, ref: LimitRef) -> None:
    await stage.worker(task("work", queue="emails", limits=("openai",)), limits=[limit("openai", total=1)])
    (refused,) = await stage.engine.change_limits([Reset(ref=ref)])
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (400, "not_overridden")


@pytest.mark.parametrize("ref", REFS.values(), ids=REFS)
async def test_a_pause_keeps_runs_from_starting_and_lets_those_that_execute_go_on(stage: Stage, ref: LimitRef) -> None:
    options = {"queue": "emails", "limits": ("openai",)}
    worker = await stage.worker(task("work", **options), limits=[limit("openai"), queue("emails")])
    lease = await stage.leased(worker)
    paused = await stage.change(Pause(ref=ref))
    assert paused.paused_at is not None
    waiting = await stage.trigger()
    assert await worker.lease() == []
    await worker.succeed(lease)
    assert await stage.status(lease.run_id) is RunStatus.COMPLETED
    assert await worker.lease() == []
    assert (await stage.change(Resume(ref=ref))).paused_at is None
    assert (await worker.lease_one()).run_id == waiting


@pytest.mark.parametrize("ref", REFS.values(), ids=REFS)
async def test_a_limit_changed_during_a_pause_holds_after_it(stage: Stage, ref: LimitRef) -> None:
    options = {"queue": "emails", "limits": ("openai",)}
    worker = await stage.worker(task("work", **options), limits=[limit("openai", total=5), queue("emails", 5)])
    await stage.trigger_many(4)
    await stage.change(Pause(ref=ref))
    bound = "per_key" if ref.kind is LimitKind.QUEUE else "total"
    await stage.change(Override(ref=ref, **{bound: 2}))
    assert await worker.lease() == []
    await stage.change(Resume(ref=ref))
    assert len(await worker.lease()) == 2


async def test_a_registration_does_not_end_a_pause(stage: Stage) -> None:
    await bounded(stage, total=1)
    await stage.change(Pause(ref=limit_ref("openai")))
    worker = await bounded(stage, total=2)
    await stage.trigger()
    assert await worker.lease() == []


async def test_a_limit_of_nothing_stays_so_after_a_pause(stage: Stage) -> None:
    worker = await bounded(stage, total=0)
    await stage.trigger()
    await stage.change(Pause(ref=limit_ref("openai")))
    await stage.change(Resume(ref=limit_ref("openai")))
    assert await worker.lease() == []


async def test_an_unknown_limit_cannot_be_changed(stage: Stage) -> None:
    (refused,) = await stage.engine.change_limits([Pause(ref=limit_ref("nothing"))])
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (404, "limit_not_found")


# ---- one key


async def test_one_key_may_be_given_another_bound_for_a_time(stage: Stage, clock: Clock) -> None:
    worker = await bounded(stage, per_key=1)
    await stage.change(OverrideKey(ref=limit_ref("openai"), concurrency_key="a", per_key=3, ttl=timedelta(hours=1)))
    for key in "ab":
        await stage.trigger_many(6, concurrency_key=key)
    leases = await worker.lease()
    assert sorted(str(lease.concurrency_key) for lease in leases) == ["a", "a", "a", "b"]
    clock.advance(timedelta(hours=1))
    await stage.tick()
    await worker.succeed(*leases)
    assert sorted(str(lease.concurrency_key) for lease in await worker.lease()) == ["a", "b"]


async def test_a_key_given_nothing_is_blocked_until_that_ends(stage: Stage, clock: Clock) -> None:
    worker = await bounded(stage, per_key=1)
    await stage.change(OverrideKey(ref=limit_ref("openai"), concurrency_key="a", per_key=0, ttl=timedelta(hours=1)))
    blocked, other = await stage.trigger(concurrency_key="a"), await stage.trigger(concurrency_key="b")
    assert [lease.run_id for lease in await worker.lease()] == [other]
    clock.advance(timedelta(hours=1))
    await stage.tick()
    assert [lease.run_id for lease in await worker.lease()] == [blocked]


async def test_the_override_of_a_key_ends_when_it_is_reset(stage: Stage) -> None:
    worker = await bounded(stage, per_key=1)
    await stage.change(OverrideKey(ref=limit_ref("openai"), concurrency_key="a", per_key=0))
    await stage.trigger(concurrency_key="a")
    assert await worker.lease() == []
    record = await stage.change(Reset(ref=limit_ref("openai"), concurrency_key="a"))
    assert record.key_overrides == ()
    assert len(await worker.lease()) == 1


async def test_a_reset_of_the_limit_leaves_the_override_of_a_key(stage: Stage) -> None:
    worker = await bounded(stage, per_key=1)
    await stage.change(OverrideKey(ref=limit_ref("openai"), concurrency_key="a", per_key=2))
    await stage.change(Override(ref=limit_ref("openai"), per_key=5))
    await stage.change(Reset(ref=limit_ref("openai")))
    for key in "ab":
        await stage.trigger_many(3, concurrency_key=key)
    assert sorted(str(lease.concurrency_key) for lease in await worker.lease()) == ["a", "a", "b"]


async def test_a_key_has_no_other_bound_where_keys_have_none(stage: Stage) -> None:
    await bounded(stage, total=1)
    wanted = OverrideKey(ref=limit_ref("openai"), concurrency_key="a", per_key=0)
    (refused,) = await stage.engine.change_limits([wanted])
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (400, "no_key_bound")


async def test_the_override_of_a_key_ends_also_when_keys_are_not_bounded_any_more(stage: Stage, clock: Clock) -> None:
    await bounded(stage, per_key=1)
    await stage.change(OverrideKey(ref=limit_ref("openai"), concurrency_key="a", per_key=0, ttl=timedelta(hours=1)))
    worker = await bounded(stage, total=5)
    await stage.trigger(concurrency_key="a")
    assert len(await worker.lease()) == 1
    clock.advance(timedelta(hours=1))
    await stage.tick()
    assert await stage.query("select id from detent.gates where opens_at <= detent.now()") == []


async def test_a_paused_limit_stays_so_for_a_key_that_is_given_another_bound(stage: Stage) -> None:
    worker = await bounded(stage, per_key=1)
    await stage.change(Pause(ref=limit_ref("openai")))
    await stage.change(OverrideKey(ref=limit_ref("openai"), concurrency_key="a", per_key=3))
    await stage.trigger(concurrency_key="a")
    assert await worker.lease() == []


# ---- what is read


async def test_a_limit_is_read_with_what_runs_and_what_waits(stage: Stage) -> None:
    options = {"queue": "emails", "limits": ("openai",)}
    worker = await stage.worker(task("work", **options), limits=[limit("openai", total=2), queue("emails", 9)])
    await stage.trigger_many(5)
    await worker.lease()
    records = await stage.engine.retrieve_limits([*REFS.values(), limit_ref("nothing")])
    found = [(record.running, record.queued) for record in records if isinstance(record, LimitRecord)]
    assert found[:2] == [(2, 3), (2, 3)]
    assert records[3] is None


async def test_a_queue_that_is_full_refuses_triggers(stage: Stage, dsn: str) -> None:
    await stage.worker(task("work", queue="emails"), limits=[queue("emails", most_queued=3)])
    await stage.trigger_many(3)
    # Another process: this one has just seen that there is room.
    other = connect(dsn)
    (refused,) = await other.trigger([request()])
    await other.close()
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (429, "queue_full")


async def taken(stage: Stage, name: str) -> int:
    """Slots that are counted in the total of a limit."""
    ((n,),) = await stage.query(
        "select coalesce(sum(taken), 0) from detent.gates where limit_id = detent.limit_id(1, 'limit', %s) and scope = 'total'",
        name,
    )
    return n
