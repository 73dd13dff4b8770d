"""A process of the storm in `test_flow_storm`: one that triggers, one that changes limits, or one that leases.

python -m tests.concurrency.flow_storm DSN ROLE SEED
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from psycopg import AsyncConnection

from detent.engine.backend import EngineBackend, connect
from detent.protocol.flow import LimitChange, Override, Pause, Reset, Resume
from detent.protocol.leases import Lease
from detent.protocol.registration import WorkerRegistration
from tests.engine.stage import (
    ENVIRONMENT,
    Stage,
    Worker,
    holder,
    limit,
    limit_ref,
    queue,
    queue_ref,
    registration,
    request,
    task,
)

RUNS = 200
SHORT = timedelta(milliseconds=20)
REFS = (queue_ref("one"), queue_ref("shared"), limit_ref("db"), limit_ref("api"), ENVIRONMENT)

# Independent of the engine's counters: every lease counts, when it commits, what executes for each limit of its runs. Commits
# that lease do so one after the other, so that each sees those before it.
WATCH = b"""
create table testing.excess (limit_name text, scope text, n integer, allowed integer);
create table testing.checks (n integer not null);
create table testing.storm (is_triggered boolean not null);
insert into testing.checks values (0);
insert into testing.storm values (false);

create function testing.executing(l detent.limits, by_key boolean, key text) returns integer language sql stable as $$
  select (
    select count(*) from detent.runs join detent.lanes on lanes.id = runs.lane_id
    where status in ('DEQUEUED', 'EXECUTING') and (not by_key or concurrency_key is not distinct from key)
      and (l.kind = 'environment' or exists (select from detent.limits_of(lanes) as held where held.id = l.id))
  ) + (
    select count(*) from detent.endings where exists (
      select from unnest(slots) as slot join detent.gates on gates.id = slot
      where limit_id = l.id and scope = case when by_key then 'key' else 'total' end
        and (not by_key or concurrency_key is not distinct from key)))
$$;

create function testing.count_executing() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock(4711);
  update testing.checks set n = n + 1;
  insert into testing.excess
  select l.name, bound.scope, used.n, bound.allowed
  from detent.lanes
  cross join lateral (
    select * from detent.limits_of(lanes)
    union all
    select * from detent.limits where kind = 'environment' and environment_id = lanes.environment_id
  ) as l
  cross join lateral detent.bounds_of(l) as bound
  cross join lateral testing.executing(l, bound.is_per_key, lanes.concurrency_key) as used (n)
  where lanes.id = new.lane_id and bound.scope <> 'rate' and used.n > bound.allowed;
  return null;
end $$;

create constraint trigger count_executing after update of status on detent.runs deferrable initially deferred
for each row when (new.status = 'DEQUEUED') execute function testing.count_executing();
"""


def code(db: int = 3) -> WorkerRegistration:
    """Parents and children share a queue of one; two tasks name the same limits in opposite orders."""
    tasks = [
        task("parent", queue="one", max_attempts=100),
        task("child", queue="one", max_attempts=100),
        task("left", queue="shared", limits=("db", "api"), max_attempts=100),
        task("right", limits=("api", "db"), max_attempts=100),
    ]
    limits = [queue("one", 1), queue("shared", 2), limit("db", total=db), limit("api", total=4, per_key=2)]
    return registration(*tasks, limits=limits)


@dataclass(slots=True)
class Leaser:
    """Takes what it gets, and lets anything happen to it, until everything is over."""

    stage: Stage
    worker: Worker
    random: random.Random
    held: list[Lease] = field(default_factory=list)
    operation: int = 0

    async def work(self) -> None:
        ticker = self.stage.engine.maintenance
        while self.held or not await self.is_over():
            self.held += await self.worker.lease(**{"async": self.random.randint(1, 6)})
            await self.random.choices(EVENTS, WEIGHTS)[0](self)
            await ticker.tick()
        await ticker.close()
        await self.worker.end()

    async def is_over(self) -> bool:
        (over,) = (
            await self.stage.query("select is_triggered and not exists (select from detent.runs) from testing.storm")
        )[0]
        return bool(over)

    def some(self) -> list[Lease]:
        chosen = self.random.sample(self.held, min(len(self.held), self.random.randint(1, 4)))
        self.held = [lease for lease in self.held if lease not in chosen]
        return chosen

    def next_operation(self) -> str:
        self.operation += 1
        return f"{self.worker.session_id}:{self.operation}"

    async def succeed(self) -> None:
        chosen = self.some()
        calling = [
            lease for lease in chosen if lease.task_id == "parent" and not lease.results and not lease.has_journal
        ]
        for lease in calling:
            await self.worker.call(lease, self.next_operation(), "child")
        await self.worker.succeed(*(lease for lease in chosen if lease not in calling))

    async def retry(self) -> None:
        await self.worker.fail(*self.some(), retry_in=SHORT)

    async def hand_back(self) -> None:
        await self.worker.hand_back(*self.some())

    async def sleep(self) -> None:
        for lease in self.some():
            await self.worker.sleep(lease, self.next_operation(), seconds=SHORT.total_seconds())

    async def cancel(self) -> None:
        chosen = self.some()[:1]
        await self.stage.engine.cancel_runs([lease.run_id for lease in chosen], "enough")
        await self.stage.engine.end_cancelled([holder(lease) for lease in chosen])

    async def crash(self) -> None:
        self.held.clear()
        await self.worker.end()
        self.worker = await self.stage.session(self.worker.version)


EVENTS: list[Callable[[Leaser], Awaitable[None]]] = [
    Leaser.succeed, Leaser.retry, Leaser.hand_back, Leaser.sleep, Leaser.cancel, Leaser.crash,
]  # fmt: skip
WEIGHTS = [20, 3, 2, 3, 1, 1]


async def lease(stage: Stage, chance: random.Random) -> None:
    version = await stage.engine.register_worker(code())
    await Leaser(stage, await stage.session(version), chance).work()


async def trigger(stage: Stage, chance: random.Random) -> None:
    tasks, keys, orders = (
        ("parent", "left", "right", "right"),
        (None, "x", "y"),
        (None, ("db", "api"), ("api", "db"), ("api",)),
    )
    for _ in range(RUNS // 10):
        wanted = [chance.choice(tasks) for _ in range(10)]
        await stage.engine.trigger(
            [request(name, concurrency_key=chance.choice(keys), limits=chance.choice(orders)) for name in wanted]
        )
    await stage.query("update testing.storm set is_triggered = true")


async def change(stage: Stage, chance: random.Random) -> None:
    """Also by deploys, until the runs are few; then everything is open again."""
    while (await stage.query("select count(*) > 20 or not bool_and(is_triggered) from detent.runs, testing.storm"))[0][
        0
    ]:
        ref = chance.choice(REFS)
        changes: list[LimitChange] = [
            Pause(ref=ref),
            Resume(ref=ref),
            Override(ref=ref, total=chance.randint(1, 4)),
            Reset(ref=ref),
        ]
        await stage.engine.change_limits([chance.choice(changes)])
        await stage.engine.change_limits([Resume(ref=ref)])
        await stage.engine.register_worker(code(db=chance.randint(1, 5)))
    await stage.engine.change_limits([each for ref in REFS for each in (Reset(ref=ref), Resume(ref=ref))])


ROLES = {"lease": lease, "trigger": trigger, "change": change}


async def main(dsn: str, role: str, seed: str) -> None:
    engine: EngineBackend = connect(dsn, size=1)
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        await ROLES[role](Stage(engine, connection), random.Random(seed))
    await engine.close()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
