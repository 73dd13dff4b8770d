"""What many coroutines ask for in the same moment goes out as one call."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from detent.errors import ApiConnectionError

Q = TypeVar("Q")
A = TypeVar("A")


class Coalescer(Generic[Q, A]):
    """Gathers single items into calls of an operation that takes a list and answers one for one.

    While `in_flight` calls are out, further items gather; so the size of a call follows the load, with no timer. Cancelling
    a caller never cancels the shared call. A call that fails is split until each item has its own answer or error, but for
    `ApiConnectionError`, which is everybody's.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Q]], Awaitable[Sequence[A]]],
        *,
        most: int = 500,
        heaviest: int = 4 * 1024 * 1024,
        weigh: Callable[[Q], int] = lambda item: 0,
        in_flight: int = 1,
    ) -> None:
        self._call, self._most, self._heaviest, self._weigh = call, most, heaviest, weigh
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._free = in_flight
        self._tasks: set[asyncio.Task[None]] = set()
        # A call carries the items of many callers: it must not run in the context of the one that happened to start it.
        self._context = contextvars.Context()

    def __call__(self, item: Q) -> asyncio.Future[A]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[A] = loop.create_future()
        self._waiting.append((item, answer))
        if self._free:
            # It takes its items when it starts, a turn of the loop later: all that is asked for in this turn goes along.
            self._free -= 1
            task = loop.create_task(self._carry(), context=self._context)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return answer

    def _take(self) -> list[tuple[Q, asyncio.Future[A]]]:
        taken, weight = [self._waiting.popleft()], 0
        weight += self._weigh(taken[0][0])
        while self._waiting and len(taken) < self._most:
            weight += self._weigh(self._waiting[0][0])
            if weight > self._heaviest:
                break
            taken.append(self._waiting.popleft())
        return taken

    async def _carry(self) -> None:
        try:
            while self._waiting:
                await self._settle([pair for pair in self._take() if not pair[1].cancelled()])
        finally:
            self._free += 1

    async def _settle(self, pairs: list[tuple[Q, asyncio.Future[A]]]) -> None:
        if not pairs:
            return
        try:
            answers = await self._call([item for item, _ in pairs])
        except asyncio.CancelledError:
            _fail(pairs, ApiConnectionError("the connection was closed before the answer came"))
            raise
        except ApiConnectionError as error:
            _fail(pairs, error)
        except Exception as error:  # noqa: BLE001 - whatever one item caused is handed to its own caller, and to no other
            if len(pairs) == 1:
                _fail(pairs, error)
            else:
                middle = len(pairs) // 2
                await self._settle(pairs[:middle])
                await self._settle(pairs[middle:])
        else:
            for (_, future), answer in zip(pairs, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


def _fail(pairs: Sequence[tuple[Q, asyncio.Future[A]]], error: Exception) -> None:
    for _, future in pairs:
        if not future.done():
            future.set_exception(error)
