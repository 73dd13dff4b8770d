"""Small tasks of every kind, and one that looks around in its process."""

from __future__ import annotations

import asyncio
import gc
import os
import threading

import psutil

from detent import Context, logger, task


@task
async def tiny(n: int) -> int:
    return n


@task
def in_thread(n: int) -> int:
    return n


@task
async def talking(n: int) -> int:
    print(f"printed by {n}")
    logger.info("logged", n=n)
    return n


@task
async def sleeping(n: int) -> int:
    await asyncio.sleep(0.01)
    return n


@task(max_duration="1m")
async def limited(n: int) -> int:
    await asyncio.gather(*(asyncio.sleep(0) for _ in range(3)))
    return n


@task(retry=1)
async def failing(n: int) -> int:
    raise ValueError(n)


@task
async def parent(n: int) -> int:
    return await tiny.call(n)


@task
async def look(ctx: Context) -> dict[str, int]:
    """What this process holds, after a collection; `rss` in bytes."""
    gc.collect()
    process = psutil.Process()
    return {
        "pid": os.getpid(),
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "files": process.num_fds(),
        "rss": process.memory_info().rss,
    }
