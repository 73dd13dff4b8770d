"""One of several client processes: connects, says so, and on a line of input triggers; prints when it began and ended."""

from __future__ import annotations

import asyncio
import sys
import time

from benchmarks.tasks import noop


async def trigger_concurrently(count: int) -> float:
    """Return the seconds that *count* `trigger` calls take under `gather`."""
    began = time.monotonic()
    await asyncio.gather(*[noop.trigger({"n": n}) for n in range(count)])
    return time.monotonic() - began


async def _main(count: int) -> None:
    await noop.trigger({"n": 0})
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    began = time.monotonic()
    await trigger_concurrently(count)
    print(began, time.monotonic(), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
