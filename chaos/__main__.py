"""`python -m chaos`: see the package's docstring."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from tests.acceptance.power import own_server
from tests.acceptance.stage import HURRY_BY, HURRY_EVERY, Stage
from tests.nursery import Nursery

from chaos import rules
from chaos.effects import Effects
from chaos.outsider import Outsider, persistently
from chaos.plan import Job, Node, programs, runs
from chaos.rules import Findings
from chaos.troubles import Troubles

CHUNK = 20
MOST_OPEN = 200
"""Programs that are triggered and not over: there shall be some to trigger at each trouble."""
CALM_AFTER = 0.95
"""Of all runs; from there on nothing goes wrong any more."""
PATIENCE = 150.0
"""Seconds without any trouble after which what has not ended never will. Runs whose thread was in a runner that was killed go on
in processes of their own, a few at a time.
"""
TOLD_EVERY = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument(
        "--seconds", type=float, default=3600.0, help="stop triggering and making trouble after so long"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--keep", type=Path, help="a folder for the logs of the workers")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"to repeat: python -m chaos --runs {given.runs} --seed {given.seed}", flush=True)
    with own_server() as power, _folder(given.keep) as folder:
        return asyncio.run(Chaos(power.dsn, folder, given.seed, given.runs, given.seconds).run(power))


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="detent-chaos-") as made:
        yield Path(made)


class Chaos:
    def __init__(self, dsn: str, folder: Path, seed: int, most: int, seconds: float) -> None:
        self._dsn, self._seed, self._most = dsn, seed, most
        (folder / "ledger.jsonl").unlink(missing_ok=True)
        self._nursery = Nursery()
        self._stage = Stage(self._nursery, dsn, folder)
        self._rng = random.Random(seed)
        self._effects = Effects(self._stage.ledger.path)
        self._roots: dict[str, Node] = {}
        self._wanted = self._ended = 0
        self._began = time.monotonic()
        self._end = self._began + seconds
        self._is_over = threading.Event()

    async def run(self, power: Any) -> int:
        troubles = Troubles(self._stage, power, random.Random(self._rng.random()))
        outsider = Outsider(self._stage.client, self._effects, random.Random(self._rng.random()))
        clock = threading.Thread(target=self._hurry, daemon=True)
        clock.start()
        beside = [
            asyncio.create_task(work) for work in (troubles.keep_workers(), outsider.serve(), self._tell(troubles))
        ]
        try:
            await self._execute(troubles)
            is_over = await self._all_over()
            if is_over:
                await outsider.finished()
            findings = await asyncio.to_thread(self._check, troubles, is_over=is_over)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            self._is_over.set()
            await asyncio.to_thread(clock.join, 10)
            await self._stage.close()
            self._nursery.close()
        findings.wrong += [*outsider.complaints, *troubles.failures]
        return self._report(findings, troubles, is_over=is_over)

    async def _execute(self, troubles: Troubles) -> None:
        """Trigger while things go wrong; return when nothing goes wrong any more."""
        making = asyncio.create_task(troubles.make())
        await self._trigger()
        while time.monotonic() < self._end and await self._count_ended() < self._wanted * CALM_AFTER:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        making.cancel()
        with suppress(asyncio.CancelledError):
            await making
        await troubles.over()

    async def _trigger(self) -> None:
        every = programs(random.Random(self._rng.random()), self._most)
        while chunk := list(itertools.islice(every, CHUNK)):
            open_runs = self._wanted - await self._count_ended()
            while open_runs > MOST_OPEN:
                if time.monotonic() > self._end:
                    return
                await asyncio.sleep(0.1)
                open_runs = self._wanted - await self._count_ended()
            await asyncio.gather(*(self._trigger_one(program) for program in chunk))

    async def _trigger_one(self, program: Node) -> None:
        """The key makes it safe to ask again when no answer came."""
        origin = f"root {len(self._roots)}"
        self._roots[origin] = program
        self._wanted += runs(program)
        tasks = self._stage.client.tasks
        await persistently(lambda: tasks.trigger(program.kind, Job(program, origin), idempotency_key=origin))

    async def _count_ended(self) -> int:
        found = await asyncio.to_thread(self._query, "select count(*) from detent.history")
        self._ended = int(found[0][0])
        return self._ended

    async def _all_over(self) -> bool:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            ((live,),) = await asyncio.to_thread(self._query, "select count(*) from detent.runs")
            ended = await self._count_ended()
            if not live and ended >= len(self._roots):
                return True
            await asyncio.sleep(0.2)
        return False

    def _query(self, statement: str) -> list[tuple[Any, ...]]:
        """By a connection of its own: it may be called from any thread, and the server may have been killed since."""
        while True:
            try:
                with psycopg.connect(
                    self._dsn, autocommit=True, application_name="chaos", connect_timeout=5
                ) as connection:
                    cursor = connection.execute(statement.encode())
                    return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                time.sleep(0.1)

    def _hurry(self) -> None:
        """Let the database's clock run three thousand times as fast."""
        while not self._is_over.wait(HURRY_EVERY):
            self._query(f"update testing.clock set shift = shift + interval '{HURRY_BY}'")

    async def _tell(self, troubles: Troubles) -> None:
        while True:
            await asyncio.sleep(TOLD_EVERY)
            seconds = time.monotonic() - self._began
            print(f"{seconds:4.0f} s  {self._ended} of {self._wanted} runs have ended  {troubles.counts()}", flush=True)

    def _check(self, troubles: Troubles, *, is_over: bool) -> Findings:
        self._effects.new()
        findings = rules.check(self._query, self._roots, self._effects.all, troubles.past, is_over=is_over)
        if not is_over:
            findings.add(f"not all runs have ended: {self._stage.describe()}")
        return findings

    def _report(self, findings: Findings, troubles: Troubles, *, is_over: bool) -> int:
        for what in findings.wrong[: rules.MOST_TOLD]:
            print(f"WRONG: {what}")
        summary = {
            "seed": self._seed,
            "runs": self._ended,
            "programs": len(self._roots),
            "seconds": round(time.monotonic() - self._began),
            "steps": findings.effects,
            "executed_again": findings.executed_again,
            "given_up": findings.given_up,
            "troubles": troubles.counts(),
            "wrong": len(findings.wrong),
        }
        print(json.dumps(summary, indent=1), flush=True)
        return 1 if findings.wrong or not is_over else 0


if __name__ == "__main__":
    sys.exit(main())
