"""What operations read when the tables are large: by key, in proportion to what was asked for, never a whole table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncConnection, AsyncRawCursor

from detent.engine.backend import EngineBackend
from detent.engine.db import Call, Db, Row, Value
from detent.engine.keyring import Keyring
from detent.engine.lanes import lane_of
from detent.engine.sql import Statement
from detent.protocol import ids
from detent.protocol.cron import Cron
from detent.protocol.idempotency import Idempotency
from detent.protocol.ids import WaitpointId
from detent.protocol.journal import JournalRead, StepRecord
from detent.protocol.leases import Lease
from detent.protocol.schedules import ScheduleRequest
from detent.protocol.selection import RunSelection
from detent.protocol.status import RunStatus
from detent.protocol.tokens import TokenCompletion, TokenCreated
from detent.protocol.waits import Suspension
from tests.database import Server
from tests.engine.stage import Stage, Worker, child, chunk, holder, origin, request, time_wait
from tests.engine.test_tokens import HOUR, token_request, token_wait
from tests.pooler import direct

QUEUED, SLEEPING, PAST, ITEMS, SCHEDULES = 50_000, 10_000, 50_000, 10_000, 10_000
ASKED = 100
LARGE = (
    "runs", "inputs", "ready", "history", "history_30_rest", "journal", "waits", "waitpoints", "batch_items",
    "idempotency_keys", "attempts", "logs_30_rest", "schedules",
)  # fmt: skip
BATCH = ids.new_batch_id()

# Ids as of yesterday, rising; queued runs on twenty lanes, half of them of a task that no worker has.
FILL = """
create function testing.id_of(kind integer, n integer) returns uuid language sql immutable as $$
  select (lpad(to_hex((extract(epoch from date '2026-01-01') * 1000)::bigint + n), 12, '0')
    || '7' || lpad(to_hex(kind), 3, '0') || '8' || lpad(to_hex(n), 15, '0'))::uuid $$;

insert into detent.runs (id, environment_id, task_id, lane_id, status, position, queued_at)
select testing.id_of(1, n), 1, case when n % 2 = 0 then 'work' else 'other' end, ({lanes})[n % 20 + 1], 'QUEUED',
  now() - interval '1 day' + n * interval '1 ms', now()
from generate_series(1, {queued}) as n;
insert into detent.ready (lane_id, position, run_id, environment_id)
select lane_id, position, id, 1 from detent.runs;

insert into detent.runs (
  id, environment_id, task_id, lane_id, status, position, waits, has_journal, is_awaited, parent_id)
select testing.id_of(2, n), 1, 'work', ({lanes})[1], 'WAITING', now(), 1, true, true, testing.id_of(3, n)
from generate_series(1, {sleeping}) as n;
insert into detent.waitpoints (id, environment_id, kind, due_at)
select testing.id_of(4, n), 1, 'time', detent.now() + case when n <= 100 then '-1 s' else interval '1 hour' end
from generate_series(1, {sleeping}) as n;
insert into detent.waits (run_id, operation, waitpoint_id, environment_id)
select testing.id_of(2, n), '0', testing.id_of(4, n), 1 from generate_series(1, {sleeping}) as n;
insert into detent.journal (run_id, attempt, operation, environment_id, kind, fingerprint, ref)
select testing.id_of(2, n), 1, '0', 1, 'time', 'time', testing.id_of(4, n) from generate_series(1, {sleeping}) as n;

insert into detent.inputs (run_id, environment_id, created_at, payload, tags, queue, priority, is_test)
select id, 1, now(), '{{}}', '{{}}', 'task/work', 0, false from detent.runs;

insert into detent.history (
  id, environment_id, task_id, status, attempt, finished_at, waits, losses, created_at, tags, queue, priority, is_test, output)
select testing.id_of(5, n), 1, 'work', 'COMPLETED', 1, now(), 0, 0, now(), '{{}}', 'task/work', 0, false, '1'
from generate_series(1, {past}) as n;
insert into detent.batches (id, environment_id, is_awaited, finished) values ('{batch}', 1, true, {items});
insert into detent.batch_items (batch_id, index, run_id, environment_id, task_id, run_status, output)
select '{batch}', n, testing.id_of(5, n), 1, 'work', 'COMPLETED', '1' from generate_series(1, {items}) as n;
insert into detent.idempotency_keys (environment_id, task_id, key, run_id, expires_at)
select 1, 'work', 'key' || n, testing.id_of(5, n), now() + interval '1 day' from generate_series(1, {items}) as n;
insert into detent.schedules (
  id, environment_id, type, task_id, cron, timezone, overlap, external_id, deduplication_key, next_at, due_at)
select testing.id_of(6, n), 1, 'IMPERATIVE', 'work', '0 * * * *', 'UTC', 'allow', 'user_' || n, 'key' || n, due_at, due_at
from generate_series(1, {schedules}) as n,
  lateral (select date_trunc('hour', now()) + case when n <= 100 then '0' else interval '1 day' end as due_at) as due;
analyze detent.runs, detent.inputs, detent.ready, detent.history, detent.history_30_rest, detent.journal, detent.waits,
  detent.waitpoints, detent.batch_items, detent.idempotency_keys, detent.schedules;
"""


class Enclosed(Db):
    """All calls in one transaction, which is never committed."""

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__("")
        self.connection = connection

    async def _execute(self, statement: Statement, params: Mapping[str, Value], behind: Call | None) -> list[Row]:
        if statement.name == "notify":
            return []
        cursor = AsyncRawCursor(self.connection)
        await cursor.execute(statement.text, [params[name] for name in statement.names])
        return await cursor.fetchall() if cursor.description else []


@dataclass(slots=True)
class Crowd:
    """An engine among many rows, and what it has read of them since it was last asked."""

    stage: Stage
    worker: Worker
    leases: list[Lease]
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)

    async def read(self, *, also: Sequence[str] = ()) -> dict[str, tuple[int, int]]:
        """Rows read by scanning a whole table, and rows fetched by an index, of each table that is large."""
        rows = await self.stage.query(
            "select relname, coalesce(seq_tup_read, 0), coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables "
            "where schemaname = 'detent'"
        )
        now = {table: (scanned, fetched) for table, scanned, fetched in rows}
        before, self.seen = self.seen, now
        return {
            t: (s - before.get(t, (0, 0))[0], f - before.get(t, (0, 0))[1])
            for t, (s, f) in now.items()
            if t in (*LARGE, *also)
        }


@pytest.fixture(scope="module")
def crowded_dsn(server: Server, template: str) -> Iterator[str]:
    lanes = [lane_of(1, f"q{i}", None, "work" if i % 2 == 0 else "other") for i in range(20)]
    listed = ", ".join(f"'{lane.lane_id}'" for lane in lanes)
    with server.new_database(template) as dsn:
        with psycopg.connect(direct(dsn), autocommit=True) as connection:
            connection.execute("set synchronous_commit = off")
            connection.execute("insert into detent.environments (slug, type) values ('dev', 'DEVELOPMENT')")
            connection.cursor().executemany(
                "insert into detent.lanes (id, line_id, environment_id, task_id, queue) values (%s, %s, 1, %s, %s)",
                [(lane.lane_id, lane.line_id, lane.task_id, lane.queue) for lane in lanes],
            )
            batch = ids.decode("batch", BATCH)
            text = FILL.format(
                lanes=f"array[{listed}]::uuid[]", queued=QUEUED, sleeping=SLEEPING, past=PAST, items=ITEMS, batch=batch,
                schedules=SCHEDULES,
            )  # fmt: skip
            connection.execute(text.encode())
        yield dsn


@pytest.fixture
async def crowd(crowded_dsn: str) -> AsyncIterator[Crowd]:
    async with await AsyncConnection.connect(direct(crowded_dsn)) as connection:
        stage = Stage(EngineBackend(Enclosed(connection), "dev", "", Keyring()), connection)
        worker = await stage.worker("work")
        crowd = Crowd(stage, worker, [])
        await crowd.read()
        crowd.leases = await worker.lease(**{"async": ASKED})
        yield crowd
        await connection.rollback()


def run_id(kind: int, n: int) -> ids.RunId:
    moment = 1767225600000 + n
    return ids.RunId(ids.encode("run", UUID(f"{moment:012x}7{kind:03x}8{n:015x}")))


KEYED = [request(idempotency=Idempotency(key=f"key{n}", user_key="k", scope="run")) for n in range(ASKED)]


def scheduling(key: str) -> ScheduleRequest:
    schedule_id = ids.new_schedule_id()
    return ScheduleRequest(schedule_id=schedule_id, task_id="work", cron=Cron("0 5 * * *"), deduplication_key=key)


async def wait_for_tokens(crowd: Crowd, *, is_completed: bool = False) -> list[WaitpointId]:
    """Each lease waits for a token of its own."""
    engine = crowd.stage.engine
    made = await engine.create_tokens([token_request() for _ in crowd.leases])
    tokens = [answer.waitpoint_id for answer in made if isinstance(answer, TokenCreated)]
    if is_completed:
        await engine.complete_tokens([TokenCompletion(waitpoint_id=token, output="1") for token in tokens[::2]])
    await crowd.read()
    waits = [token_wait(*pair, suspends=False) for pair in zip(crowd.leases, tokens, strict=True)]
    await engine.wait_for(waits)
    return tokens


async def complete_tokens(crowd: Crowd) -> None:
    tokens = await wait_for_tokens(crowd)
    await crowd.read()
    await crowd.stage.engine.complete_tokens([TokenCompletion(waitpoint_id=token, output="1") for token in tokens])


async def collect(crowd: Crowd) -> None:
    await complete_tokens(crowd)
    await crowd.read()
    await crowd.stage.engine.collect([holder(lease) for lease in crowd.leases])


async def suspend(crowd: Crowd) -> None:
    await wait_for_tokens(crowd)
    await crowd.read()
    await crowd.stage.engine.suspend([Suspension(holder=holder(lease), until=HOUR) for lease in crowd.leases])


async def lease_again(crowd: Crowd) -> None:
    """With what came meanwhile."""
    await complete_tokens(crowd)
    await crowd.worker.hand_back(*crowd.leases)
    await crowd.read()
    assert len(await crowd.worker.lease(**{"async": ASKED})) == ASKED


OPERATIONS: dict[str, Callable[[Crowd], Awaitable[object]]] = {
    "lease": lambda c: c.worker.lease(**{"async": ASKED}),
    "start": lambda c: c.worker.start(*c.leases),
    "complete": lambda c: c.worker.succeed(*c.leases),
    "retry": lambda c: c.worker.fail(*c.leases, retry_in=timedelta(1)),
    "trigger": lambda c: c.stage.engine.trigger([request() for _ in range(ASKED)]),
    "trigger again": lambda c: c.stage.engine.trigger([request() for _ in range(ASKED)], is_repeat=True),
    "trigger by key": lambda c: c.stage.engine.trigger(KEYED),
    "children": lambda c: c.stage.engine.trigger_children([child(lease, "9") for lease in c.leases]),
    "wait": lambda c: c.stage.engine.wait_for([time_wait(lease, "9") for lease in c.leases]),
    "chunk": lambda c: c.stage.engine.trigger_batch(chunk(BATCH, range(50_000, 50_000 + ASKED))),
    "waiting batch": lambda c: c.worker.batch(c.leases[0], ASKED),
    "cancel": lambda c: c.stage.engine.cancel_runs([lease.run_id for lease in c.leases], "stop"),
    "cancel waiting": lambda c: c.stage.engine.cancel_runs([run_id(2, 500 + n) for n in range(ASKED)], "stop"),
    "renew": lambda c: c.worker.renew(*c.leases),
    "hand back": lambda c: c.worker.hand_back(*c.leases),
    "end session": lambda c: c.worker.end(is_lost=True),
    "tick": lambda c: c.stage.tick(),
    "retrieve": lambda c: c.stage.engine.retrieve_runs([run_id(5, n) for n in range(1, 50)] + [run_id(1, 7)]),
    "watch": lambda c: c.stage.engine.watch_runs([run_id(5, n) for n in range(1, 50)] + [run_id(1, 7)]),
    "list": lambda c: c.stage.engine.list_runs(RunSelection()),
    "list on": lambda c: c.stage.engine.list_runs(RunSelection(), before=run_id(5, 35_000)),
    "journals": lambda c: c.stage.engine.read_journals([JournalRead(holder=holder(lease)) for lease in c.leases]),
    "wait for tokens": wait_for_tokens,
    "wait for completed tokens": lambda c: wait_for_tokens(c, is_completed=True),
    "complete tokens": complete_tokens,
    "collect": collect,
    "suspend": suspend,
    "lease again": lease_again,
    "steps": lambda c: c.stage.engine.record_steps(
        [StepRecord(origin=origin(lease, "a#0"), fingerprint="f", output="1") for lease in c.leases]
    ),
    "fire schedules": lambda c: c.stage.engine.maintenance.fire_schedules(),
    "create schedules": lambda c: c.stage.engine.create_schedules(
        [scheduling(f"key{n}") for n in range(500, 500 + ASKED)]
    ),
    "results": lambda c: c.stage.engine.read_batch_results(BATCH, after=5_000, limit=ASKED),
    "batch": lambda c: c.stage.engine.retrieve_batches([BATCH]),
    "retry of a batch": lambda c: c.stage.engine.trigger_batch(
        chunk(ids.new_batch_id(), range(ASKED), total=ASKED, origin=origin(c.leases[0], "8"))
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_operation_among_many_rows_reads_few(crowd: Crowd, name: str) -> None:
    assert len(crowd.leases) == ASKED
    await crowd.read()
    await OPERATIONS[name](crowd)
    read = await crowd.read()
    scanned = {table: rows for table, (rows, _) in read.items() if rows > 2 * ASKED}
    fetched = {table: rows for table, (_, rows) in read.items() if rows > 16 * ASKED}
    assert (scanned, fetched) == ({}, {})


PAST_RUNS = {
    "status": RunSelection(statuses=(RunStatus.FAILED, RunStatus.CRASHED)),
    "task": RunSelection(task_ids=("nothing",)),
    "tag": RunSelection(tags=("user:7",)),
    "parent": RunSelection(parent_run_id=ids.new_run_id()),
    "batch": RunSelection(batch_id=ids.new_batch_id()),
    "schedule": RunSelection(schedule_id=ids.new_schedule_id()),
    "bulk action": RunSelection(bulk_id=ids.new_bulk_id()),
    "test": RunSelection(is_test=True),
    "long ago": RunSelection(created_before=datetime(2020, 1, 1, tzinfo=UTC)),
}


@pytest.mark.parametrize("name", PAST_RUNS)
async def test_a_filter_that_nothing_matches_reads_few_of_many_past_runs(crowd: Crowd, name: str) -> None:
    await crowd.read()
    assert await crowd.stage.engine.list_runs(PAST_RUNS[name]) == []
    read = await crowd.read()
    scanned, fetched = read["history_30_rest"]
    assert (scanned, fetched) <= (0, 1)


async def test_whether_the_task_of_queued_runs_is_registered_is_asked_once_for_each_lane(crowd: Crowd) -> None:
    unregistered = RunSelection(statuses=(RunStatus.PENDING_VERSION,), task_ids=("work",))
    await crowd.read()
    assert await crowd.stage.engine.list_runs(unregistered) == []
    read = await crowd.read(also=("lanes",))
    assert sum(read["lanes"]) < QUEUED / 10


TENANTS = """
insert into detent.gates (id, limit_id, environment_id, scope, allowed, taken)
values (testing.id_of(8, 1), testing.id_of(8, 2), 1, 'total', 1, 1),
  (testing.id_of(8, 3), testing.id_of(8, 4), 1, 'total', 1000, 0);
insert into detent.lanes (id, line_id, environment_id, task_id, queue, concurrency_key, gates, parked_on)
select testing.id_of(9, n), testing.id_of(9, n), 1, 'work', 'tenants', n::text,
  array[testing.id_of(8, case when mod(n, 100) = 0 then 3 else 1 end)],
  case when mod(n, 100) = 0 then null when mod(n, 2) = 0 then testing.id_of(8, 1) else detent.asleep() end
from generate_series(1, 40000) as n;
insert into detent.runs (id, environment_id, task_id, lane_id, status, position, queued_at)
select testing.id_of(10, n), 1, 'work', testing.id_of(9, n), 'QUEUED', '2020-01-01', now() from generate_series(2, 40000, 2) as n;
insert into detent.inputs (run_id, environment_id, created_at, tags, queue, priority, is_test)
select testing.id_of(10, n), 1, now(), '{}', 'tenants', 0, false from generate_series(2, 40000, 2) as n;
insert into detent.ready (lane_id, position, run_id, environment_id)
select lane_id, position, id, 1 from detent.runs where position = '2020-01-01';
"""


async def test_a_lease_among_tenants_that_cannot_start_reads_only_those_that_can(crowd: Crowd) -> None:
    """40,000 lanes: half of them asleep, half of them parked on a limit that is full, 400 that may start."""
    await crowd.stage.query(TENANTS)
    await crowd.read()
    leases = await crowd.worker.lease(**{"async": ASKED})
    assert len({lease.run_id for lease in leases}) == ASKED
    read = await crowd.read(also=("lanes", "gates"))
    assert {table: rows for table, rows in read.items() if rows[0] > 2 * ASKED or rows[1] > 16 * ASKED} == {}


INDEX_ENTRIES = "select pg_stat_get_xact_tuples_returned('detent.ready_pkey'::regclass)"


async def test_a_lease_passes_once_over_what_was_taken_under_an_old_snapshot(crowd: Crowd) -> None:
    """Nothing of this transaction can be removed: so it is with everything since a snapshot that is still in use."""
    ((taken,),) = await crowd.stage.query(
        "with gone as (delete from detent.ready where position < (select max(position) from detent.ready) - interval '1 s' "
        "returning lane_id) "
        "select count(*) from gone join detent.lanes on lanes.id = gone.lane_id where lanes.task_id = 'work'"
    )
    ((before,),) = await crowd.stage.query(INDEX_ENTRIES)
    assert len(await crowd.worker.lease(**{"async": ASKED})) == ASKED
    ((after,),) = await crowd.stage.query(INDEX_ENTRIES)
    assert taken > 20_000
    assert taken <= after - before < 1.1 * taken
