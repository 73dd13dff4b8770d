"""How many runs can be triggered a second?"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from benchmarks.client import trigger_concurrently
from benchmarks.database import Database
from benchmarks.machine import ROOT
from benchmarks.measuring import MeasurementError, figure
from benchmarks.stage import Stage
from benchmarks.tasks import noop

CLIENTS = 4


def answer(stage: Stage) -> dict[str, float]:
    with stage.database() as database:
        singles, many = stage.sized(2000), stage.sized(10_000)
        figures = {
            "single_per_s": figure(asyncio.run(_singles_per_s(singles))),
            "concurrent_per_s": figure(asyncio.run(_concurrent_per_s(many))),
            "batch_per_s": figure(asyncio.run(_batch_per_s(many))),
            "four_processes_per_s": figure(_processes_per_s(many)),
        }
        _check_queued(database, singles + 2 * many + CLIENTS * many + 3 + CLIENTS)
    return figures


async def _singles_per_s(count: int) -> float:
    await noop.trigger({"n": 0})
    began = time.monotonic()
    for n in range(count):
        await noop.trigger({"n": n})
    return count / (time.monotonic() - began)


async def _concurrent_per_s(count: int) -> float:
    await noop.trigger({"n": 0})
    return count / await trigger_concurrently(count)


async def _batch_per_s(count: int) -> float:
    await noop.trigger({"n": 0})
    began = time.monotonic()
    await noop.batch_trigger([{"n": n} for n in range(count)])
    return count / (time.monotonic() - began)


def _processes_per_s(count: int) -> float:
    command = [sys.executable, "-m", "benchmarks.client", str(count)]
    clients = [_spawn(command) for _ in range(CLIENTS)]
    try:
        for client in clients:
            _read(client)
        for client in clients:
            _say_go(client)
        spans = [tuple(map(float, _read(client).split())) for client in clients]
    finally:
        for client in clients:
            client.kill()
            client.communicate()
    return CLIENTS * count / (max(end for _, end in spans) - min(began for began, _ in spans))


def _spawn(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def _read(client: subprocess.Popen[str]) -> str:
    line = client.stdout.readline() if client.stdout else ""
    if not line:
        raise MeasurementError("a client process ended before its time")
    return line


def _say_go(client: subprocess.Popen[str]) -> None:
    if client.stdin is not None:
        client.stdin.write("go\n")
        client.stdin.flush()


def _check_queued(database: Database, expected: int) -> None:
    queued = database.number("select count(*) from detent.ready")
    if queued != expected or database.live_runs() != expected:
        raise MeasurementError(f"{expected} runs should be queued, not {queued:.0f}")
