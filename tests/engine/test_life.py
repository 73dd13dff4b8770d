"""Random lives: whatever happens to runs in whatever order, the tables stay consistent and every run ends once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from psycopg import AsyncConnection

from detent.engine.backend import connect
from detent.protocol import ids
from detent.protocol.batches import BatchChunk
from detent.protocol.execution import Isolation
from detent.protocol.fence import Stale
from detent.protocol.idempotency import Idempotency
from detent.protocol.ids import RunId
from detent.protocol.leases import Lease
from detent.protocol.selection import RunSelection
from detent.protocol.status import FINAL, RunStatus
from detent.protocol.triggering import Triggered
from tests.database import Clock, Database
from tests.engine.invariants import broken_rules
from tests.engine.stage import BOOM, Stage, child, chunk, holder, origin, request, task
from tests.pooler import direct

LEFTOVERS = ("runs", "inputs", "ready", "journal", "waits", "batch_items", "endings")
KEYS = st.none() | st.sampled_from([Idempotency(key=letter * 64, user_key=letter, scope="global") for letter in "ab"])
DELAYS = st.sampled_from([None, None, None, timedelta(minutes=1)])
PICKS = st.integers(0, 2**16)
TASKS = st.sampled_from(["work", "work", "thread", "once", "unknown"])


class Life(RuleBasedStateMachine):
    """Two workers, four tasks (one that nobody has), a clock, and callers; each rule is one event."""

    database: Database
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.made: set[RunId] = set()
        self.ended: dict[RunId, RunStatus] = {}
        self.leases: list[Lease] = []
        self.batches: list[tuple[BatchChunk, int]] = []
        self.operation = 0

    def do(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    # ---- set-up

    @initialize()
    def begin(self) -> None:
        self.clock = Clock(connection=self.database.connection)
        self.do(self._begin())

    async def _begin(self) -> None:
        connection = await AsyncConnection.connect(direct(self.database.dsn), autocommit=True)
        self.stage = Stage(connect(self.database.dsn), connection)
        tasks = (task("work", oom_machine="large-1x"), task("thread", isolation=Isolation.THREAD), task("once", max_attempts=1))
        self.workers = [await self.stage.worker(*tasks) for _ in range(2)]

    def teardown(self) -> None:
        try:
            self.do(self._end())
        finally:
            self.database.reset()

    async def _end(self) -> None:
        try:
            await self._drain()
        finally:
            await self.stage.engine.close()
            await self.stage.connection.close()

    async def _drain(self) -> None:
        """Register the unknown task, let everything end, and look at what is left."""
        engine = self.stage.engine
        for worker in self.workers:
            await worker.end()
        worker = await self.stage.worker("work", "thread", "once", "unknown")
        while await self.stage.count("runs"):
            self.clock.advance(timedelta(days=1))
            await self.stage.tick()
            leases = await worker.lease()
            await worker.succeed(*leases)
            if not leases:
                await self._break_circle()
        assert {table: n for table in LEFTOVERS if (n := await self.stage.count(table))} == {}
        assert await self.stage.query("select id from detent.waitpoints where not is_shared") == []
        records = await engine.retrieve_runs(sorted(self.made))
        assert all(record is not None and record.status in FINAL for record in records)
        assert await self.stage.count("history") == len(self.made)
        for record in records:
            assert self.ended.get(record.id, record.status) == record.status

    async def _break_circle(self) -> None:
        """Keys allow runs to wait for each other, or for themselves; somebody must then cancel one."""
        (stuck, *_) = await self.stage.engine.list_runs(RunSelection(statuses=(RunStatus.WAITING,)))
        assert await self.stage.engine.cancel_runs([stuck.id], "waits for itself") == [True]
        self.ended[stuck.id] = RunStatus.CANCELED

    def settled(self, lease: Lease, answer: object) -> None:
        if lease in self.leases:
            self.leases.remove(lease)
        if not isinstance(answer, Stale) and answer.status in FINAL:
            assert lease.run_id not in self.ended
            self.ended[lease.run_id] = answer.status

    def held(self, pick: int) -> list[Lease]:
        """One of the leases that workers believe to hold, if there is any; whole numbers are drawn in its stead, because
        what is drawn must not depend on what the database did."""
        return [self.leases[pick % len(self.leases)]] if self.leases else []

    def next_operation(self) -> str:
        self.operation += 1
        return str(self.operation)

    # ---- callers

    @rule(task_id=TASKS, key=KEYS, delay=DELAYS, priority=st.sampled_from([0.0, 0.0, 5.0, -5.0]), twice=st.booleans())
    def trigger(self, task_id: str, key: Idempotency | None, delay: Any, priority: float, twice: bool) -> None:
        wanted = request(task_id, idempotency=key, delay=delay, priority=priority)
        for _ in range(1 + twice):
            (answer,) = self.do(self.stage.engine.trigger([wanted], is_repeat=twice))
            self.made.add(answer.run_id)

    @rule(pick=PICKS)
    def cancel(self, pick: int) -> None:
        for run_id in sorted(self.made)[pick % max(1, len(self.made)) :][:1]:
            (is_new,) = self.do(self.stage.engine.cancel_runs([run_id], "enough"))
            if is_new:
                assert run_id not in self.ended
                self.ended[run_id] = RunStatus.CANCELED

    @rule(key=st.sampled_from("ab"), task_id=TASKS)
    def reset_key(self, key: str, task_id: str) -> None:
        self.do(self.stage.engine.reset_idempotency_key(task_id, key * 64))

    # ---- workers

    @rule(which=st.integers(0, 1), room=st.sampled_from([{"async": 1}, {"async": 5, "thread": 5}, {"process": 1}]))
    def lease(self, which: int, room: dict[str, int]) -> None:
        self.leases += self.do(self.workers[which].lease(**room))

    @rule(pick=PICKS)
    def start(self, pick: int) -> None:
        self.do(self.workers[0].start(*self.held(pick)))

    @rule(pick=PICKS, ending=st.sampled_from(["succeed", "succeed", "fail", "time_out", "give_up", "run_out_of_memory"]))
    def end_attempt(self, pick: int, ending: str) -> None:
        for lease in self.held(pick):
            (answer,) = self.do(getattr(self.workers[0], ending)(lease))
            self.settled(lease, answer)

    @rule(pick=PICKS, seconds=st.sampled_from([0, 30]))
    def retry(self, pick: int, seconds: int) -> None:
        for lease in self.held(pick):
            (answer,) = self.do(self.workers[0].fail(lease, retry_in=timedelta(seconds=seconds)))
            self.settled(lease, answer)

    @rule(pick=PICKS)
    def hand_back(self, pick: int) -> None:
        self.do(self.workers[0].hand_back(*self.held(pick)))

    @rule(pick=PICKS)
    def end_cancelled(self, pick: int) -> None:
        self.do(self.stage.engine.end_cancelled([holder(lease) for lease in self.held(pick)]))

    # ---- durable operations

    @rule(pick=PICKS, task_id=TASKS, key=KEYS, delay=DELAYS, wait=st.booleans(), twice=st.booleans())
    def call(self, pick: int, task_id: str, key: Any, delay: Any, wait: bool, twice: bool) -> None:
        for lease in self.held(pick):
            wanted = child(lease, self.next_operation(), task_id, wait=wait, idempotency=key, delay=delay)
            for _ in range(1 + twice):
                self._called(self.do(self.stage.engine.trigger_children([wanted])))

    @rule(picks=st.lists(PICKS, min_size=2, max_size=4), key=KEYS)
    def call_together(self, picks: list[int], key: Any) -> None:
        leases = [lease for pick in picks for lease in self.held(pick)]
        wanted = [child(lease, self.next_operation(), idempotency=key) for lease in leases]
        self._called(self.do(self.stage.engine.trigger_children(wanted)))

    def _called(self, answers: list[Any]) -> None:
        self.made |= {answer.triggered.run_id for answer in answers if not isinstance(answer, Stale)}

    @rule(pick=PICKS, seconds=st.sampled_from([0, 60]))
    def sleep(self, pick: int, seconds: int) -> None:
        for lease in self.held(pick):
            self.do(self.workers[0].sleep(lease, self.next_operation(), seconds=seconds))

    @rule(pick=PICKS, count=st.integers(0, 3), key=KEYS, is_sealed=st.booleans(), wait=st.booleans())
    def batch(self, pick: int, count: int, key: Any, is_sealed: bool, wait: bool) -> None:
        batch_id = ids.new_batch_id()
        places = [origin(lease, self.next_operation(), wait=wait) for lease in self.held(pick)]
        place = places[0] if places and pick % 3 else None
        whole = chunk(batch_id, range(count), total=count if is_sealed else None, origin=place, idempotency=key)
        self._taken(self.do(self.stage.engine.trigger_batch(whole)))
        if not is_sealed:
            self.batches.append((whole, count))

    @rule(more=st.integers(0, 2), is_sealed=st.booleans())
    def continue_batch(self, more: int, is_sealed: bool) -> None:
        for whole, count in self.batches[:1]:
            total = count + more
            given = range(max(0, count - 1), total)
            rest = chunk(whole.batch_id, given, total=total if is_sealed else None, origin=whole.origin)
            self._taken(self.do(self.stage.engine.trigger_batch(rest)))
            self.batches = self.batches[1:] + ([] if is_sealed else [(whole, total)])

    @rule()
    def abort_batch(self) -> None:
        for whole, _ in self.batches[:1]:
            self.do(self.stage.engine.abort_batch(whole.batch_id, "it raised"))

    def _taken(self, answer: Any) -> None:
        items = getattr(answer, "items", ())
        self.made |= {item.run_id for item in items if isinstance(item, Triggered)}

    # ---- time, and accidents

    @rule(seconds=st.sampled_from([1, 31, 61]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(timedelta(seconds=seconds))
        self.do(self.stage.tick())

    @rule()
    def head_starts_end(self) -> None:
        self.do(self.stage.query("update detent.ready set resident_until = clock_timestamp() - interval '1 s'"))

    @rule(which=st.integers(0, 1), forgets=PICKS)
    def renew(self, which: int, forgets: int) -> None:
        """With some of what is held: the rest came in a reply that was lost."""
        known = [lease for i, lease in enumerate(self.leases) if not forgets >> i & 1]
        self.do(self.stage.query("update detent.runs set leased_at = leased_at - interval '1 h'"))
        self.do(self.workers[which].renew(*known))

    @rule(which=st.integers(0, 1), pick=PICKS, is_lost=st.booleans())
    def die(self, which: int, pick: int, is_lost: bool) -> None:
        suspects = () if is_lost else tuple(lease.run_id for lease in self.held(pick))
        self.do(self.workers[which].end(suspects=suspects, is_lost=is_lost, error=None if is_lost else BOOM))
        self.workers[which] = self.do(self.stage.session(self.workers[which].version))

    # ---- what is always true

    def check_invariants(self, *args: Any, **options: Any) -> None:
        super().check_invariants(*args, **options)
        if hasattr(self, "stage"):
            assert self.do(broken_rules(self.stage.connection)) == {}


@contextmanager
def lives(database: Database) -> Iterator[type[Life]]:
    with asyncio.Runner() as runner:
        yield type("Life", (Life,), {"database": database, "runner": runner})


@pytest.mark.parametrize("part", range(2))
def test_no_order_of_events_breaks_an_invariant(database: Database, part: int) -> None:
    with lives(database) as machine:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=12,
                stateful_step_count=50,
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
                print_blob=False,
            ),
        )
