"""The tasks that are measured. Clocks are CLOCK_MONOTONIC, which all processes of a machine share."""

from __future__ import annotations

import asyncio
import os
import time

from detent import Concurrency, step, task, wait


@task(id="noop")
async def noop(payload: dict[str, int]) -> int:
    return payload["n"]


@task(id="noop-of-tenant", concurrency=Concurrency(per_key=1))
async def noop_of_tenant(payload: dict[str, int]) -> int:
    return payload["n"]


@task(id="stamp")
async def stamp() -> float:
    return time.monotonic()


@task(id="fan-out")
async def fan_out(children: int) -> float:
    """Return the seconds from the first child's trigger until all results are there."""
    began = time.monotonic()
    done = await noop.batch_trigger_and_wait([{"n": n} for n in range(children)])
    seconds = time.monotonic() - began
    assert [child.output for child in done.runs if child.ok] == list(range(children))
    return seconds


@task(id="sequence")
async def sequence(children: int) -> float:
    """Return the seconds that children take one after the other."""
    began = time.monotonic()
    for n in range(children):
        assert await noop.trigger_and_wait({"n": n}).unwrap() == n
    return time.monotonic() - began


async def identity(n: int) -> int:
    return n


@task(id="steps")
async def steps(count: int) -> float:
    """Return the seconds that steps take one after the other."""
    began = time.monotonic()
    for n in range(count):
        assert await step("identity", identity, n) == n
    return time.monotonic() - began


@task(id="sleeper")
async def sleeper(seconds: float) -> float:
    """Return by how much the wait was too long."""
    began = time.monotonic()
    await wait.for_(seconds)
    return time.monotonic() - began - seconds


@task(id="hold")
async def hold(ledger: str) -> None:
    """Write down who executes this and since when, then stay."""
    with open(ledger, "a") as lines:  # noqa: ASYNC230 - one line, and the moment of writing it is what is measured
        lines.write(f"{os.getpid()} {time.monotonic()}\n")
    await asyncio.sleep(600)
