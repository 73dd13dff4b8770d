"""What is told to the backend and awaited by nobody: gathered, sent in few calls, repeated until it arrived."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from detent.errors import ApiConnectionError
from detent.worker.persistence import pauses

Q = TypeVar("Q")
A = TypeVar("A")

log = logging.getLogger("detent.worker")


class Outbox(Generic[Q, A]):
    """Carries items to an operation that takes a list and answers one for one, or not at all (`None`).

    While a call is out, further items gather. `delivered` is told each answer. An item that alone makes the call fail for
    another reason than the connection is given to `refused`, and its neighbours go on.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Q]], Awaitable[Sequence[A] | None]],
        *,
        delivered: Callable[[Q, A | None], None] = lambda item, answer: None,
        refused: Callable[[Q, Exception], None] | None = None,
        most: int = 500,
        in_flight: int = 1,
    ) -> None:
        self._call, self._delivered, self._refused, self._most = call, delivered, refused or _report, most
        self._items: deque[Q] = deque()
        self._free = self._in_flight = in_flight
        self._is_scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        # A call carries the items of many runs: it must not run in the context of the one that happened to start it.
        self._context = contextvars.Context()

    def put(self, item: Q) -> None:
        self._items.append(item)
        if self._free and not self._is_scheduled:
            self._is_scheduled = True
            self._is_empty.clear()
            asyncio.get_running_loop().call_soon(self._send, context=self._context)

    async def emptied(self) -> None:
        """Return when everything has been delivered."""
        await self._is_empty.wait()

    def _send(self) -> None:
        self._is_scheduled = False
        while self._free and self._items:
            self._free -= 1
            taken = [self._items.popleft() for _ in range(min(self._most, len(self._items)))]
            task = asyncio.get_running_loop().create_task(self._carry(taken))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, items: Sequence[Q]) -> None:
        try:
            await self._deliver(items)
        finally:
            self._free += 1
            if self._items:
                self._send()
            elif self._free == self._in_flight:
                self._is_empty.set()

    async def _deliver(self, items: Sequence[Q]) -> None:
        for pause in pauses():
            try:
                answers = await self._call(items)
            except ApiConnectionError:
                await asyncio.sleep(pause)
            except Exception as error:  # noqa: BLE001 - one item's fault is found by halving, and reported with the item
                return await self._halve(items, error)
            else:
                return self._tell(items, answers)
        return None

    async def _halve(self, items: Sequence[Q], error: Exception) -> None:
        if len(items) == 1:
            self._refused(items[0], error)
            return
        middle = len(items) // 2
        await self._deliver(items[:middle])
        await self._deliver(items[middle:])

    def _tell(self, items: Sequence[Q], answers: Sequence[A] | None) -> None:
        if answers is None:
            for item in items:
                self._delivered(item, None)
        else:
            for item, answer in zip(items, answers, strict=True):
                self._delivered(item, answer)


def _report(item: object, error: Exception) -> None:
    log.error("the backend refused %r: %s", item, error)
