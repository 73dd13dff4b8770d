"""What becomes of runs that are over: how long they are kept, what goes with them, and what is held back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from detent import Retention
from detent.engine.backend import EngineBackend, connect
from detent.engine.db import Db
from detent.engine.maintenance import BUSY_SECONDS, HOUSEKEEPING_SECONDS
from detent.protocol import ids
from detent.protocol.ids import RunId
from detent.protocol.leases import Lease
from detent.protocol.retention import RetentionRule
from detent.protocol.triggering import Triggered
from tests.database import Clock, open_database
from tests.engine.stage import Stage, Worker, chunk, holder, journal_of, origin, registration, request
from tests.engine.test_idempotency import keyed
from tests.engine.test_logs import line
from tests.engine.test_tokens import token_request
from tests.pooler import direct

DAY = timedelta(days=1)
PARTITIONS = "select name from detent.partitions where starts_at is not null order by 1"
SIZE = """
select sum(pg_total_relation_size(oid))::bigint from pg_class where relnamespace = 'detent'::regnamespace and relkind = 'r'"""


@dataclass(frozen=True, slots=True)
class House(Stage):
    """A stage on a database of the test's own, whose partitions come and go."""

    clock: Clock
    runner: Worker

    async def keep(self, retention: Retention) -> None:
        await self.engine.register_worker(replace(registration("work"), retention=retention.rules()))

    async def keep_house(self) -> float:
        return await self.engine.maintenance.keep_house()

    async def pass_days(self, days: int) -> None:
        """Keep house every day, as a worker does."""
        for _ in range(days):
            self.clock.advance(DAY)
            assert await self.keep_house() == HOUSEKEEPING_SECONDS

    async def leases(self, count: int, task_id: str = "work") -> list[Lease]:
        await self.engine.trigger([request(task_id) for _ in range(count)])
        return await self.runner.lease()

    async def finish(self, count: int = 1, *, task_id: str = "work", fails: bool = False, lines: int = 1) -> list[RunId]:
        leases = await self.leases(count, task_id)
        await self.log(leases, lines)
        await (self.runner.fail if fails else self.runner.succeed)(*leases)
        return [lease.run_id for lease in leases]

    async def log(self, leases: Sequence[Lease], lines: int = 1) -> None:
        now = self.clock.now()
        await self.engine.append_logs([replace(line(lease, n), at=now) for lease in leases for n in range(lines)])

    async def kept(self) -> set[RunId]:
        return {ids.encode("run", run_id) for (run_id,) in await self.query("select id from detent.history")}

    async def lines_of(self, run_id: RunId) -> int:
        return len(await self.engine.read_logs(run_id))

    async def partitions(self) -> list[str]:
        return [name for (name,) in await self.query(PARTITIONS)]

    async def number(self, query: str) -> int:
        ((number,),) = await self.query(query)
        return int(number)


@pytest.fixture
async def house(fresh_dsn: str) -> AsyncIterator[House]:
    engine = connect(fresh_dsn, patience=5.0, listen_url=direct(fresh_dsn))
    with open_database(fresh_dsn) as database:
        async with await AsyncConnection.connect(direct(fresh_dsn), autocommit=True) as connection:
            worker = await Stage(engine, connection).worker("work", "noisy")
            house = House(engine, connection, Clock(connection=database.connection), worker)
            await house.keep_house()
            yield house
    await engine.close()


# ---- rules


async def test_a_run_is_kept_for_thirty_days(house: House) -> None:
    (run,) = await house.finish()
    await house.pass_days(30)
    assert await house.kept() == {run}
    await house.pass_days(1)
    assert await house.kept() == set()
    assert await house.count("logs") == 0


async def test_the_most_specific_rule_wins(house: House) -> None:
    await house.keep(
        Retention(default="4d", statuses={"COMPLETED": "3d"}, tasks={"noisy": {"FAILED": "2d"}, "work": "5d"})
    )
    names = {}
    for task_id, fails in (("noisy", True), ("noisy", False), ("work", True), ("work", False)):
        (run,) = await house.finish(task_id=task_id, fails=fails)
        names[run] = (task_id, "FAILED" if fails else "COMPLETED")
    days: dict[tuple[str, str], int] = {}
    for day in range(1, 8):
        await house.pass_days(1)
        days |= {names[run]: day for run in await house.kept()}
    # The day on which a run finished counts as a whole.
    assert days == {
        ("noisy", "FAILED"): 2, ("noisy", "COMPLETED"): 3, ("work", "FAILED"): 5, ("work", "COMPLETED"): 5,
    }  # fmt: skip


async def test_what_is_kept_for_ever_stays(house: House) -> None:
    await house.keep(Retention(default="1d", statuses={"FAILED": None}))
    await house.finish()
    (failed,) = await house.finish(fails=True)
    house.clock.advance(400 * DAY)
    await house.pass_days(1)
    assert await house.kept() == {failed}
    assert await house.lines_of(failed) == 1


async def test_a_new_rule_holds_for_runs_that_end_from_then_on(house: House) -> None:
    (before,) = await house.finish()
    await house.keep(Retention(default="2d"))
    await house.finish()
    await house.pass_days(3)
    assert await house.kept() == {before}


async def test_a_registration_replaces_the_rules_of_its_environment_alone(house: House, fresh_dsn: str) -> None:
    other = connect(fresh_dsn, environment="other")
    await house.keep(Retention(default="1d", tasks={"noisy": "2d"}))
    await house.keep(Retention(default="3d"))
    await other.register_worker(registration("work"))
    assert (await house.engine.read_retention()).rules == (RetentionRule(keep_days=3),)
    assert (await other.read_retention()).rules == ()
    await other.close()


async def test_who_waits_for_months_reads_as_many_partitions_as_who_waits_for_one(house: House) -> None:
    await house.keep(Retention(default="365d"))
    for _ in range(60):
        await house.finish()
        house.clock.advance(timedelta(days=10))
        await house.keep_house()
    assert 25 <= len([name for name in await house.partitions() if name.startswith("history_365_")]) <= 32
    assert 36 <= len(await house.kept()) <= 38


# ---- time


async def test_thirty_days_leave_the_disk_as_it_was(house: House) -> None:
    await house.keep(Retention(default="5d", statuses={"FAILED": "8d"}))
    counts, sizes = [], []
    for _ in range(30):
        await house.finish(40, lines=5)
        await house.finish(5, fails=True)
        await house.pass_days(1)
        await house.query("vacuum")
        counts.append(len(await house.partitions()))
        sizes.append(await house.number(SIZE))
    assert len(set(counts[10:])) == 1
    assert max(sizes[20:]) <= 1.05 * max(sizes[10:20])


async def test_a_database_that_nobody_tended_for_sixty_days_recovers(house: House) -> None:
    house.clock.advance(timedelta(days=20))
    await house.finish(3)
    house.clock.advance(timedelta(days=40))
    (today,) = await house.finish()
    assert await house.keep_house() == HOUSEKEEPING_SECONDS
    assert await house.kept() == {today}
    assert await house.count("logs") == 1
    await house.pass_days(1)
    await house.finish()
    assert await house.number("select count(*) from detent.history_30_rest") == 1
    await house.pass_days(31)
    assert await house.kept() == set()


# ---- what goes along, and what is held back


async def test_attempts_batches_and_tokens_go_with_their_runs(house: House) -> None:
    batch_id = ids.new_batch_id()
    await house.engine.trigger_batch(chunk(batch_id, [0], total=1))
    (lease,) = await house.runner.lease()
    await house.engine.create_tokens([token_request(timeout=timedelta(days=2))])
    await house.runner.fail(lease, retry_in=timedelta(0))
    house.clock.advance(timedelta(seconds=1))
    await house.engine.maintenance.tick()
    await house.runner.succeed(await house.runner.lease_one())
    tables = ("attempts", "batches", "waitpoints")
    await house.pass_days(2)
    await house.engine.maintenance.tick()
    assert [await house.count(table) for table in tables] == [1, 1, 1]
    await house.pass_days(33)
    assert [await house.count(table) for table in tables] == [0, 0, 0]


async def test_a_run_that_waits_for_sixty_days_misses_nothing(house: House) -> None:
    parent = (await house.leases(1))[0]
    await house.log([parent])
    await house.runner.call(parent, "0")
    child = await house.runner.lease_one()
    await house.runner.succeed(child, output='"from the child"')
    (parent,) = await house.runner.lease()
    await house.runner.sleep(parent, "1", days=60)
    await house.pass_days(59)
    assert await house.kept() == {child.run_id}
    await house.pass_days(1)
    await house.engine.maintenance.tick()
    (parent,) = await house.runner.lease()
    journal = await journal_of(house.engine, holder(parent))
    assert [entry.kind for entry in journal] == ["child", "time"]  # type: ignore[union-attr]
    assert '"from the child"' in repr(journal)
    assert await house.lines_of(parent.run_id) == 1
    await house.runner.succeed(parent)
    await house.pass_days(1)
    assert await house.kept() == {parent.run_id}
    await house.pass_days(30)
    assert [await house.count(table) for table in ("history", "logs")] == [0, 0]


async def test_a_batch_that_is_given_again_after_months_makes_no_second_run(house: House) -> None:
    parent = (await house.leases(1))[0]
    whole = chunk(ids.new_batch_id(), [0], total=1, origin=origin(parent, "0", wait=False))
    await house.engine.trigger_batch(whole)
    await house.runner.succeed(await house.runner.lease_one())
    await house.pass_days(60)
    await house.engine.trigger_batch(whole)
    assert await house.runner.lease() == []


async def test_lines_are_kept_as_long_as_their_run(house: House) -> None:
    await house.keep(Retention(default="3d", statuses={"FAILED": "6d"}))
    (slow,) = await house.leases(1)
    await house.log([slow])
    await house.finish()
    (failed,) = await house.finish(fails=True)
    await house.pass_days(2)
    await house.runner.succeed(slow)
    await house.pass_days(2)
    assert [await house.lines_of(run) for run in (slow.run_id, failed)] == [1, 1]
    assert await house.count("logs") == 2
    await house.pass_days(2)
    assert [await house.lines_of(run) for run in (slow.run_id, failed)] == [0, 1]
    await house.pass_days(1)
    assert await house.count("logs") == 0


async def test_a_key_whose_run_is_gone_is_free(house: House) -> None:
    await house.keep(Retention(default="1d"))
    requests = [keyed(ttl=timedelta(days=30)) for _ in range(3)]
    await house.engine.trigger(requests[:1])
    await house.runner.succeed(await house.runner.lease_one())
    await house.pass_days(1)
    (second,) = await house.engine.trigger(requests[1:2])
    await house.pass_days(1)
    (third,) = await house.engine.trigger(requests[2:])
    assert isinstance(second, Triggered)
    assert isinstance(third, Triggered)
    assert (second.run_id, second.is_cached) == (requests[0].run_id, True)
    assert (third.run_id, third.is_cached) == (requests[2].run_id, False)


# ---- others at the same time


async def test_a_reader_puts_the_drop_off_and_stops_nobody(house: House, fresh_dsn: str) -> None:
    await house.finish()
    due = await house.partitions()
    house.clock.advance(timedelta(days=31))
    async with await AsyncConnection.connect(direct(fresh_dsn)) as reader:
        await reader.execute("select count(*) from detent.history")
        assert await house.keep_house() == BUSY_SECONDS
        assert set(due) & set(await house.partitions())
        (run,) = await house.finish()
        assert run in await house.kept()
    assert await house.keep_house() == HOUSEKEEPING_SECONDS
    assert not set(due[:1]) & set(await house.partitions())
    assert await house.kept() == {run}


async def test_runs_end_and_are_read_while_partitions_go(house: House, fresh_dsn: str) -> None:
    await house.keep(Retention(default="1d", statuses={"FAILED": "2d"}))
    for _ in range(8):
        await house.finish(20)
        await house.finish(5, fails=True)
        house.clock.advance(DAY)
        await house.query("select detent.make_partition(2)")
    engines = [connect(fresh_dsn, size=1) for _ in range(3)]
    over = asyncio.Event()

    async def complete() -> int:
        done = 0
        while not over.is_set():
            done += len(await house.finish(5))
        return done

    async def read(engine: EngineBackend) -> int:
        seen = 0
        while not over.is_set():
            (run,) = [run for (run,) in await house.query("select id from detent.history order by id desc limit 1")]
            (outcome,) = await engine.watch_runs([ids.encode("run", run)])
            seen += outcome is not None
        return seen

    async def let_go() -> None:
        while await engines[0].maintenance.keep_house() == BUSY_SECONDS:
            pass
        over.set()

    async with asyncio.timeout(30):
        done, seen, _ = await asyncio.gather(complete(), read(engines[1]), let_go())
    assert done > 0
    assert seen > 0
    assert await house.number("select count(*) from detent.partitions where due_at <= detent.now()") == 0
    assert len(await house.kept()) >= done
    for engine in engines:
        await engine.close()


class Died(BaseException):
    """The process was killed."""


@pytest.mark.parametrize("statement", ["make_partition", "clear_history", "clear_logs", "drop_partition", "forget_past"])
async def test_a_death_in_the_midst_of_it_leaves_nothing_broken(
    house: House, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.keep(Retention(default="2d", statuses={"FAILED": "4d"}))
    await house.finish(3)
    (failed,) = await house.finish(fails=True)
    house.clock.advance(timedelta(days=3))
    call = Db.call

    async def call_and_die(self: Db, name: str, params: Any, **options: Any) -> Any:
        rows = await call(self, name, params, **options)
        if name == statement:
            raise Died
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(Db, "call", call_and_die)
        with pytest.raises(Died):
            await house.keep_house()
    assert failed in await house.kept()
    assert await house.lines_of(failed) == 1
    assert await house.keep_house() == HOUSEKEEPING_SECONDS
    assert await house.kept() == {failed}
    assert await house.count("logs") == 1


async def test_a_drop_that_is_cut_off_leaves_the_partition_whole(house: House, fresh_dsn: str) -> None:
    (run,) = await house.finish()
    house.clock.advance(timedelta(days=31))
    dropper = await AsyncConnection.connect(direct(fresh_dsn))
    await dropper.execute("select detent.drop_partition(name) from detent.partitions where due_at <= detent.now()")
    await house.query("select pg_terminate_backend(%s, 5000)", dropper.info.backend_pid)
    await dropper.close()
    assert await house.kept() == {run}
    await house.keep_house()
    assert await house.kept() == set()


async def test_the_first_worker_finds_a_partition_for_its_runs(fresh_dsn: str) -> None:
    engine = connect(fresh_dsn)
    await engine.register_worker(replace(registration("work"), retention=Retention().rules()))
    names = {partition.name for partition in (await engine.read_retention()).partitions if partition.starts_at}
    assert len(names) == 2 * 3
    await engine.close()


async def test_a_rule_for_a_new_time_waits_for_no_reader_and_no_writer(house: House, fresh_dsn: str) -> None:
    async with await AsyncConnection.connect(direct(fresh_dsn)) as other:
        await other.execute("select count(*) from detent.history")
        await other.execute("lock table detent.history, detent.logs in row exclusive mode")
        async with asyncio.timeout(5):
            await house.keep(Retention(default="12d"))
    (run,) = await house.finish()
    await house.pass_days(12)
    assert await house.kept() == {run}
    await house.pass_days(1)
    assert await house.kept() == set()


async def test_many_may_keep_house_at_once(house: House, fresh_dsn: str) -> None:
    parent = (await house.leases(1))[0]
    await house.log([parent])
    for i in range(10):
        await house.runner.call(parent, str(i), wait=False)
    children = await house.runner.lease()
    await house.log(children)
    await house.runner.succeed(*children)
    await house.finish(50)
    house.clock.advance(timedelta(days=31))
    engines = [connect(fresh_dsn) for _ in range(4)]
    await asyncio.gather(*(engine.maintenance.keep_house() for engine in engines))
    await house.keep_house()
    assert await house.kept() == {child.run_id for child in children}
    assert await house.count("logs") == 11
    for engine in engines:
        await engine.close()
