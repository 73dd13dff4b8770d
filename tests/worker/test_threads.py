"""The threads that execute plain functions."""

from __future__ import annotations

import asyncio
import threading

from detent.worker.note import Note
from detent.worker.threads import Threads


async def test_a_thread_serves_on_when_whoever_awaited_it_was_cancelled() -> None:
    note, _ = Note.create()
    threads, may_end, numbers = Threads(note), threading.Event(), list[int]()
    given_up = threads.start(may_end.wait, 0, numbers.append)
    waiting = asyncio.create_task(asyncio.wait_for(asyncio.wrap_future(given_up), 60))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    may_end.set()
    assert await asyncio.to_thread(given_up.result, 10)
    async with asyncio.timeout(10):
        while not threads._idle:  # noqa: ASYNC110 - it says nothing of being free again
            await asyncio.sleep(0)
    again = threads.start(threading.get_ident, 0, numbers.append)
    await asyncio.wrap_future(again)
    assert numbers == [0, 0]
    threads.close()
