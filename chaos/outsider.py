"""Somebody outside of all workers, who completes tokens: soon, before anybody waits, or too late; and each a second time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from chaos.effects import Effect, Effects
from detent import Client
from detent.errors import ApiConnectionError
from detent.protocol.status import TokenStatus

T = TypeVar("T")

LOOK_EVERY = 0.05
LONGEST_PONDERING = 0.5


class Outsider:
    def __init__(self, client: Client, effects: Effects, rng: random.Random) -> None:
        self._client, self._effects, self._rng = client, effects, rng
        self._known: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.complaints: list[str] = []

    async def serve(self) -> None:
        while True:
            for effect in self._effects.new():
                if effect.what == "token":
                    self._take(effect)
            await asyncio.sleep(LOOK_EVERY)

    async def finished(self) -> None:
        """Return when every token it was told of is completed."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _take(self, effect: Effect) -> None:
        kind, token_id, data = effect.detail.split()
        if token_id in self._known:
            return
        self._known.add(token_id)
        task = asyncio.create_task(self._complete(kind, token_id, int(data)))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.complaints.append(f"a token could not be completed: {error!r}")

    async def _complete(self, kind: str, token_id: str, data: int) -> None:
        wait = self._client.wait
        if kind == "late":
            await self._timed_out(token_id)
        elif kind == "token":
            await asyncio.sleep(self._rng.random() * LONGEST_PONDERING)
        is_first = await persistently(lambda: wait.complete_token(token_id, data))
        if is_first is (kind == "late"):
            self.complaints.append(f"token {token_id} ({kind}) was completed with the answer {is_first}")
        if await persistently(lambda: wait.complete_token(token_id, data + 1)):
            self.complaints.append(f"token {token_id} ({kind}) could be completed twice")

    async def _timed_out(self, token_id: str) -> None:
        """Ask until a token has timed out."""
        while True:
            token = await persistently(lambda: self._client.wait.retrieve_token(token_id))
            if token.status is TokenStatus.TIMED_OUT:
                return
            await asyncio.sleep(LOOK_EVERY * 4)


async def persistently(call: Callable[[], Awaitable[T]]) -> T:
    """Call until the database answers."""
    while True:
        try:
            return await call()
        except ApiConnectionError:
            await asyncio.sleep(LOOK_EVERY)
