"""The whole way to a real database and back, from outside a run."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import pytest
from psycopg import AsyncConnection
from pydantic import BaseModel

from detent import (
    BatchStatus,
    BatchTriggerError,
    Client,
    ConfigError,
    NotFoundError,
    Retry,
    RunQuery,
    RunStatus,
    Task,
    UnprocessableEntityError,
    batch,
    idempotency_keys,
    runs,
    task,
    tasks,
)
from detent.engine.backend import EngineBackend
from detent.protocol import ids
from detent.protocol.attempts import Succeeded
from detent.protocol.execution import Isolation
from detent.protocol.fence import Holder
from detent.protocol.ids import new_batch_id, new_bulk_id, new_run_id, new_schedule_id, new_session_id
from detent.protocol.leases import Lease, LeaseRequest
from detent.protocol.registration import WorkerRegistration
from detent.protocol.sessions import SessionOpening
from detent.sdk.registry import registry


class Order(BaseModel):
    id: str
    amount: int


class Receipt(BaseModel):
    order_id: str


ORDER = Order(id="o1", amount=5)


@pytest.fixture
def charge() -> Task[Order, Receipt, ..., object]:
    @task
    async def charge(order: Order) -> Receipt:
        return Receipt(order_id=order.id)

    return charge


Charge: TypeAlias = Task[Order, Receipt, ..., object]


class FakeWorker:
    """Leases what is ready and completes it with what the task returns."""

    def __init__(self, engine: EngineBackend) -> None:
        self._engine = engine
        self._session = new_session_id()
        self._fence = 0

    async def start(self) -> None:
        registrations = tuple(task.registration(Retry()) for task in registry.all())
        version = await self._engine.register_worker(WorkerRegistration(tasks=registrations))
        await self._engine.open_session(SessionOpening(session_id=self._session, version=version, worker="test"))

    async def work_off(self) -> None:
        """Complete what is ready; when nothing is, what becomes it first."""
        async with self._engine.listen() as wakes:
            while not (leases := await self._lease()):
                await anext(wakes)
        for lease in leases:
            known = registry.get(lease.task_id)
            assert known is not None
            value = known.decode_payload(lease.payload)
            output = known.encode_output(await known.__wrapped__(value))  # type: ignore[misc]
            holder = Holder(run_id=lease.run_id, fence=lease.fence)
            await self._engine.complete_attempts([Succeeded(holder=holder, output=output)])

    async def _lease(self) -> list[Lease]:
        self._fence += 1
        room = {Isolation.ASYNC: 100}
        return await self._engine.lease(LeaseRequest(session_id=self._session, fence=self._fence, room=room))


@pytest.fixture
async def worker(engine: EngineBackend, charge: object) -> FakeWorker:
    worker = FakeWorker(engine)
    await worker.start()
    return worker


async def count_runs(conn: AsyncConnection) -> int:
    row = await (await conn.execute("select count(*) from detent.runs")).fetchone()
    assert row is not None
    return int(row[0])


# ---- triggering and reading ----


async def test_run_is_read_as_it_was_triggered(home: str, charge: Task[Order, Receipt, ..., object]) -> None:
    handle = await charge.trigger(
        ORDER, delay="1h", tags=["user:7"], max_attempts=7, max_duration="2m", machine="micro", metadata={"a": [1]}, priority=3,
        queue="cards", concurrency_key="user 7", idempotency_key="order 1",
    )  # fmt: skip

    run = await runs.retrieve(handle)

    assert (run.id, run.task_id, run.status) == (handle.id, "charge", RunStatus.DELAYED)
    assert (run.payload, run.output, run.metadata) == ({"id": "o1", "amount": 5}, None, {"a": [1]})
    assert (run.tags, run.max_attempts, run.max_duration, run.priority) == (("user:7",), 7, 120.0, 3.0)
    assert (run.machine, run.usage_duration) == ("micro", 0)
    assert (run.queue, run.concurrency_key, run.idempotency_key) == ("cards", "user 7", "order 1")
    assert run.is_queued
    assert not run.is_completed
    assert run.waiting_reason is not None
    assert run.waiting_reason.code == "DELAYED"


async def test_end_of_a_run_is_announced_to_who_polls(
    worker: FakeWorker, charge: Task[Order, Receipt, ..., object]
) -> None:
    handle = await charge.trigger(ORDER)
    polled = asyncio.ensure_future(runs.poll(handle, timeout="20s"))

    await worker.work_off()
    run = await polled

    assert (run.status, run.output) == (RunStatus.COMPLETED, Receipt(order_id="o1"))
    assert (await runs.poll(handle)).output == Receipt(order_id="o1")
    assert (await runs.retrieve(handle.id)).output == {"order_id": "o1"}


async def test_trigger_and_poll_returns_the_ended_run(worker: FakeWorker) -> None:
    followed = asyncio.ensure_future(tasks.trigger_and_poll("charge", {"id": "o1", "amount": 5}, timeout=20))

    await worker.work_off()

    assert (await followed).output == {"order_id": "o1"}


async def test_trigger_and_poll_of_a_task_gives_its_types(
    worker: FakeWorker, charge: Task[Order, Receipt, ..., object]
) -> None:
    followed = asyncio.ensure_future(charge.trigger_and_poll(ORDER, timeout=20, tags="user:7"))

    await worker.work_off()
    run = await followed

    assert (run.output, run.tags) == (Receipt(order_id="o1"), ("user:7",))


async def test_trigger_and_poll_of_a_run_that_has_ended_returns_it(worker: FakeWorker) -> None:
    first = await tasks.trigger("charge", {"id": "o1", "amount": 5}, idempotency_key="k")
    await worker.work_off()

    run = await tasks.trigger_and_poll("charge", {"id": "o1", "amount": 5}, idempotency_key="k", timeout=20)

    assert (run.id, run.output) == (first.id, {"order_id": "o1"})


async def test_polling_gives_up_after_its_timeout(home: str) -> None:
    handle = await tasks.trigger("nobody", None)

    with pytest.raises(TimeoutError):
        await runs.poll(handle, timeout="50ms")


async def test_same_key_gives_the_same_run_until_it_is_reset(home: str) -> None:
    first = await tasks.trigger("charge", idempotency_key="k")
    second = await tasks.trigger("charge", idempotency_key="k")
    await idempotency_keys.reset("charge", "k")
    third = await tasks.trigger("charge", idempotency_key="k")

    assert (first.is_cached, second.is_cached, third.is_cached) == (False, True, False)
    assert first.id == second.id != third.id
    with pytest.raises(NotFoundError, match='task "charge" has no run under the idempotency key "other"'):
        await idempotency_keys.reset("charge", "other")


async def test_a_key_is_reset_for_a_task_as_for_its_id(
    home: str, charge: Task[Order, Receipt, ..., object]
) -> None:
    first = await charge.trigger(ORDER, idempotency_key="k")
    await idempotency_keys.reset(charge, "k")

    assert (await charge.trigger(ORDER, idempotency_key="k")).id != first.id


async def test_fifty_triggers_of_one_key_make_one_run(home: str, conn: AsyncConnection) -> None:
    handles = await asyncio.gather(*(tasks.trigger("charge", idempotency_key="k") for _ in range(50)))

    assert len({handle.id for handle in handles}) == 1
    assert sum(not handle.is_cached for handle in handles) == 1
    assert await count_runs(conn) == 1


async def test_cancel_says_whether_it_came_in_time(home: str) -> None:
    handle = await tasks.trigger("charge")

    assert await runs.cancel(handle, reason="changed my mind")
    assert not await runs.cancel(handle.id)
    run = await runs.retrieve(handle)
    assert run.is_cancelled
    assert run.is_completed
    assert not run.is_failed


async def test_replay_is_a_new_run_of_the_old_input(home: str) -> None:
    old = await tasks.trigger("charge", {"n": 1}, tags="a")

    again = await runs.replay(old)
    changed = await runs.replay(old.id, payload={"n": 2})

    assert again.id != old.id
    assert ((await runs.retrieve(again)).payload, (await runs.retrieve(changed)).payload) == ({"n": 1}, {"n": 2})
    assert (await runs.retrieve(again)).replay_of == old.id
    assert again.task_id == "charge"


async def test_replay_takes_the_options_of_a_trigger(home: str) -> None:
    old = await tasks.trigger("charge", {"n": 1}, tags="a", metadata={"m": 1})
    again = await runs.replay(old, tags=["b", "c"], metadata={}, machine="micro", delay="1h", priority=5)
    run = await runs.retrieve(again)
    assert (run.payload, run.tags, run.metadata, run.machine, run.priority) == ({"n": 1}, ("b", "c"), {}, "micro", 5)
    assert run.status is RunStatus.DELAYED
    with pytest.raises(TypeError, match="unknown option 'machin'; did you mean \"machine\""):
        runs.replay(old, machin="micro")  # type: ignore[call-overload]


@pytest.mark.parametrize("call", [runs.retrieve, runs.cancel, runs.replay, runs.poll])
async def test_unknown_and_malformed_ids_are_told_apart(home: str, call: object) -> None:
    assert callable(call)
    with pytest.raises(NotFoundError, match="there is no run run_"):
        await call(new_run_id())
    with pytest.raises(ValueError, match="'run_1' is no run id"):
        await call("run_1")
    with pytest.raises(TypeError, match="a run is named by its id or its handle"):
        await call(5)


async def test_list_pages_through_all_runs_newest_first(home: str) -> None:
    handles = [await tasks.trigger("charge" if n % 2 else "notify", tags=[f"n{n}"]) for n in range(5)]
    ids = [handle.id for handle in reversed(handles)]

    page = await runs.list(limit=2)

    assert [run.id for run in page] == ids[:2]
    assert page.has_next_page
    assert [run.id async for run in page] == ids
    assert [run.id async for run in runs.list(limit=3)] == ids
    assert [run.id async for run in runs.list(task_id="notify")] == ids[::2]
    assert [run.id async for run in runs.list(tags="n4")] == ids[:1]
    assert [run.id async for run in runs.list(status="COMPLETED")] == []
    assert [run.id async for run in runs.list(created_after=datetime.now(UTC) + timedelta(days=1))] == []


FOUND: dict[str, RunQuery] = {
    "queue": {"queue": ["task/charge", "emails"]},
    "version": {"version": "v1"},
    "machine": {"machine": "micro"},
    "parent": {"parent_run_id": new_run_id()},
    "batch": {"batch_id": new_batch_id()},
    "schedule": {"schedule_id": new_schedule_id()},
    "bulk action": {"bulk_id": new_bulk_id()},
    "test": {"is_test": True},
    "period": {"period": "1h"},
    "nothing": {"machine": None, "period": None, "tags": (), "is_test": None},
}


@pytest.mark.parametrize("name", FOUND)
async def test_lists_and_bulk_actions_take_the_same_filters(home: str, name: str) -> None:
    handle = await tasks.trigger("charge", 1)
    listed = [run.id async for run in runs.list(**FOUND[name])]
    assert listed == ([handle.id] if name in {"queue", "period", "nothing"} else [])
    if name != "nothing":
        assert (await runs.bulk.cancel(filter=FOUND[name])).total == len(listed)


async def test_bad_filters_are_refused_at_the_call(home: str) -> None:
    with pytest.raises(ValueError, match="'COMPLETE' is no status; did you mean \"COMPLETED\""):
        runs.list(status="COMPLETE")
    with pytest.raises(ValueError, match=r"created_after=.* is a naive datetime"):
        runs.list(created_after=datetime(2030, 1, 1))
    with pytest.raises(TypeError, match="unknown filter 'tag'; did you mean \"tags\""):
        runs.list(tag="a")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="'run_1' is no batch id"):
        runs.list(batch_id="run_1")
    with pytest.raises(TypeError, match="created_after and period say the same"):
        runs.list(created_after=datetime.now(UTC), period="1h")
    with pytest.raises(ValueError, match="limit=0 must be 1 to 100"):
        runs.list(limit=0)


# ---- batches ----


async def test_batch_larger_than_a_chunk_keeps_its_order(home: str) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(1_300):
            yield number

    made = await tasks.batch_trigger("charge", numbers())

    assert len({handle.id for handle in made.runs}) == 1_300
    read = await asyncio.gather(*(runs.retrieve(made.runs[index]) for index in (0, 499, 500, 1_299)))
    assert [run.payload for run in read] == [0, 499, 500, 1_299]
    assert {run.batch_id for run in read} == {made.id}


async def test_batch_of_several_tasks_is_one_batch(home: str, charge: Task[Order, Receipt, ..., object]) -> None:
    made = await batch.trigger([charge.item(ORDER), tasks.item("notify", {"user": 7}, delay="1m")])

    read = [await runs.retrieve(handle.id) for handle in made.runs]
    assert [run.task_id for run in read] == ["charge", "notify"]
    assert {run.batch_id for run in read} == {made.id}


async def test_iterable_that_fails_midway_aborts_the_batch(home: str, conn: AsyncConnection) -> None:
    def numbers() -> Iterator[int]:
        yield from range(1_200)
        raise OSError("the file ended")

    with pytest.raises(BatchTriggerError, match="the file ended") as raised:
        await tasks.batch_trigger("charge", numbers())

    error = raised.value
    assert (error.phase, error.item_count) == ("items", 500)
    assert await count_runs(conn) == 500
    row = await (await conn.execute("select aborted from detent.batches")).fetchone()
    assert row == ("the file ended",)


async def test_iterable_that_fails_at_once_makes_nothing(home: str, conn: AsyncConnection) -> None:
    def numbers() -> Iterator[int]:
        raise OSError("no such file")
        yield

    with pytest.raises(BatchTriggerError) as raised:
        await tasks.batch_trigger("charge", numbers())

    assert (raised.value.phase, raised.value.item_count) == ("create", 0)
    assert await count_runs(conn) == 0


async def test_item_that_the_engine_refuses_fails_alone(worker: FakeWorker, conn: AsyncConnection) -> None:
    made = await tasks.batch_trigger("charge", [{"id": "o1", "amount": 5}, {"id": "o2"}])

    good, bad = [await runs.retrieve(handle) for handle in made.runs]
    assert (good.is_queued, bad.is_failed) == (True, True)
    assert bad.error is not None
    assert bad.error.code == "BATCH_ITEM_COULD_NOT_TRIGGER"
    (item,) = (await batch.retrieve(made.id)).errors
    assert (item.index, item.run_id) == (1, bad.id)


async def test_batch_key_gives_the_earlier_batch_without_giving_it_again(home: str, conn: AsyncConnection) -> None:
    first = await tasks.batch_trigger("charge", [1, 2], idempotency_key="import 7")

    def unread() -> Iterator[int]:
        raise AssertionError("a batch that was given whole is not read again")
        yield

    again = await tasks.batch_trigger("charge", unread(), idempotency_key="import 7")

    assert (first.is_cached, again.is_cached, again.id) == (False, True, first.id)
    assert [handle.id for handle in again.runs] == [handle.id for handle in first.runs]
    assert await count_runs(conn) == 2


async def test_batch_key_goes_on_with_a_batch_that_broke_off(home: str, conn: AsyncConnection) -> None:
    """Its first caller died after the first chunk, without a word."""
    first = await tasks.batch_trigger("charge", range(3), idempotency_key="import 7")
    await conn.execute("update detent.batches set sealed_at = null, total = null, received = '{[0,2)}'")
    await conn.execute("delete from detent.ready where run_id = %s", [ids.decode("run", first.runs[2].id)])
    await conn.execute("delete from detent.inputs where run_id = %s", [ids.decode("run", first.runs[2].id)])
    await conn.execute("delete from detent.runs where id = %s", [ids.decode("run", first.runs[2].id)])

    again = await tasks.batch_trigger("charge", range(3), idempotency_key="import 7")

    assert (again.id, again.is_cached) == (first.id, True)
    assert (await batch.retrieve(again)).status is BatchStatus.PROCESSING
    assert await count_runs(conn) == 3


async def test_batch_is_retrieved_by_its_handle_or_id(home: str) -> None:
    made = await tasks.batch_trigger("charge", [1, 2])

    record = await batch.retrieve(made)
    assert (record.status, record.run_count) == (BatchStatus.PROCESSING, 2)
    assert list(record.run_ids) == [handle.id for handle in made.runs]
    assert (await batch.retrieve(made.id)).id == made.id
    with pytest.raises(NotFoundError, match="there is no batch"):
        await batch.retrieve(ids.new_batch_id())
    with pytest.raises(ValueError, match="is no batch id"):
        await batch.retrieve("run_1")


def test_batch_is_read_by_blocking_calls(home: str) -> None:
    made = tasks.sync.batch_trigger("charge", [1])
    assert batch.sync.retrieve(made).run_count == made.run_count == 1
    assert batch.sync.results(made).runs == ()
    runs.sync.cancel(made.runs[0])
    assert [result.ok for result in batch.sync.poll(made).runs] == [False]


async def test_results_of_a_batch_are_those_of_the_runs_that_have_ended(worker: FakeWorker, charge: Charge) -> None:
    made = await charge.batch_trigger([ORDER, charge.item(ORDER, delay="1h"), Order(id="o2", amount=1)])
    await worker.work_off()
    done = await batch.results(made)
    assert [result.unwrap() for result in done.runs] == [Receipt(order_id="o1"), Receipt(order_id="o2")]
    assert [result.id for result in done.runs] == [made.runs[0].id, made.runs[2].id]
    by_id = await batch.results(made.id)
    assert [result.unwrap() for result in by_id.runs] == [{"order_id": "o1"}, {"order_id": "o2"}]


async def test_polling_a_batch_returns_its_results_when_all_have_ended(
    worker: FakeWorker, charge: Charge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detent.sdk.batch.PAGE", 2)
    made = await charge.batch_trigger([ORDER, ORDER, ORDER])
    await runs.cancel(made.runs[1])
    with pytest.raises(TimeoutError):
        await batch.poll(made, timeout="1ms")
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        polled = group.create_task(batch.poll(made.id))
        await worker.work_off()
    assert [result.ok for result in (await polled).runs] == [True, False, True]


async def test_results_of_no_batch_are_an_error(home: str) -> None:
    for call in (batch.results, batch.poll):
        with pytest.raises(NotFoundError, match="there is no batch"):
            await call(ids.new_batch_id())
    assert (await batch.poll(await tasks.batch_trigger("charge", []))).runs == ()


# ---- bad input leaves nothing behind ----


async def test_by_id_the_engine_checks_the_payload(worker: FakeWorker, conn: AsyncConnection) -> None:
    with pytest.raises(UnprocessableEntityError, match="amount"):
        await tasks.trigger("charge", {"id": "o1"})

    assert await count_runs(conn) == 0


async def test_one_bad_trigger_of_many_fails_alone(worker: FakeWorker, conn: AsyncConnection) -> None:
    payloads = [{"id": "o1", "amount": n if n != 7 else "seven"} for n in range(20)]

    answers = await asyncio.gather(*(tasks.trigger("charge", p) for p in payloads), return_exceptions=True)

    assert [index for index, answer in enumerate(answers) if isinstance(answer, Exception)] == [7]
    assert await count_runs(conn) == 19


async def test_cancelling_one_caller_leaves_the_others(home: str, conn: AsyncConnection) -> None:
    callers = [asyncio.ensure_future(tasks.trigger("charge", {"n": n})) for n in range(10)]
    await asyncio.sleep(0)
    callers[3].cancel()

    answers = await asyncio.gather(*callers, return_exceptions=True)

    assert [index for index, answer in enumerate(answers) if isinstance(answer, BaseException)] == [3]


# ---- clients ----


async def test_client_speaks_to_the_database_it_was_given(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DETENT_DATABASE_URL", raising=False)
    async with Client(database_url=dsn, environment="staging") as staging, Client(database_url=dsn) as dev:
        handle = await staging.tasks.trigger("charge", {"n": 1})

        assert (await staging.runs.retrieve(handle)).payload == {"n": 1}
        with pytest.raises(NotFoundError):
            await dev.runs.retrieve(handle)


def test_client_over_http_comes_later() -> None:
    with pytest.raises(ConfigError, match="clients over HTTP come later"):
        Client(api_url="https://example.com", secret_key="s")
    with pytest.raises(ConfigError, match="needs database_url="):
        Client()


async def test_calls_over_http_come_later_and_speak_to_no_other_database_meanwhile(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETENT_DATABASE_URL", dsn)
    monkeypatch.setenv("DETENT_API_URL", "https://example.com")
    monkeypatch.setenv("DETENT_SECRET_KEY", "tr_dev_1")

    with pytest.raises(ConfigError, match="calls over HTTP come later; unset DETENT_SECRET_KEY"):
        await tasks.trigger("charge")


def test_without_a_database_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DETENT_DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError, match="set it, or start `detent dev` in the project's folder"):
        asyncio.run(asyncio.wait_for(tasks.trigger("charge"), 20))


@pytest.mark.usefixtures("nothing_kept")
def test_every_loop_has_its_own_connection_and_leaves_none_behind(home: str) -> None:
    async def one() -> str:
        return (await tasks.trigger("charge")).id

    first, second = asyncio.run(one()), asyncio.run(one())
    gc.collect()

    assert first != second


def test_blocking_calls_go_to_the_same_database(home: str) -> None:
    handle = tasks.sync.trigger("charge", {"n": 1}, tags="sync")

    assert runs.sync.retrieve(handle).payload == {"n": 1}
    assert runs.sync.retrieve(handle.id).tags == ("sync",)
    assert runs.sync.cancel(handle)
    tasks.sync.batch_trigger("charge", iter([{"n": 2}, {"n": 3}]))
    assert [run.payload for run in runs.sync.list(limit=2).sync] == [{"n": 3}, {"n": 2}, {"n": 1}]
    with pytest.raises(NotFoundError):
        runs.sync.retrieve(new_run_id())


@pytest.mark.usefixtures("nothing_kept")
def test_forked_process_opens_its_own_connection(home: str) -> None:
    parents = tasks.sync.trigger("charge", {"from": "parent"})

    child = os.fork()
    if child == 0:
        signal.alarm(30)
        made = tasks.sync.trigger("charge", {"from": "child"})
        os._exit(0 if runs.sync.retrieve(made).payload == {"from": "child"} else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert runs.sync.retrieve(parents).payload == {"from": "parent"}


def test_script_that_closes_nothing_ends_without_a_warning(home: str) -> None:
    script = """
import asyncio
from detent import runs, tasks

async def main():
    handle = await tasks.trigger("charge", {"n": 1})
    try:
        await runs.poll(handle, timeout=0.05)
    except TimeoutError:
        return handle.id

print(asyncio.run(main()))
print(tasks.sync.trigger("charge", {"n": 2}).id)
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, "DETENT_DATABASE_URL": home}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (ended.stderr, ended.returncode) == ("", 0)
    assert len(ended.stdout.split()) == 2
