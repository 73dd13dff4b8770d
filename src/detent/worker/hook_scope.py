"""A run as those of its hooks see it that no replay repeats: what they ask for is not in the journal, and they do not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NoReturn

from detent.errors import HookWaitError
from detent.protocol.idempotency import Idempotency, WaitKey
from detent.protocol.ids import BatchId, WaitpointId
from detent.protocol.moment import When
from detent.protocol.refusal import Refused, to_error
from detent.protocol.runs import RunOutcome
from detent.protocol.tokens import TokenCreated, TokenRequest
from detent.protocol.triggering import Triggered, TriggerRequest
from detent.protocol.waits import WaitResult
from detent.sdk import scope as run_scope
from detent.sdk.target import Named
from detent.worker.path import Path, here
from detent.worker.run_scope import SLEPT_IN_PROCESS, AttemptScope

if TYPE_CHECKING:
    from detent.sdk.chunks import GivenBatch, Requests


class HookScope(AttemptScope):
    """Triggers and makes tokens as code outside of runs does; a step is just executed."""

    __slots__ = ("_outside",)

    def __init__(self, scope: AttemptScope) -> None:
        self.share(scope)
        self._outside = Named(lambda: self.backend)

    @property
    def is_replaying(self) -> bool:
        return False

    def check(self) -> None:
        """The end of the run is no reason for its hooks to end."""

    async def trigger(self, request: TriggerRequest) -> Triggered:
        answer = await self._outside.trigger(request)
        if isinstance(answer, Refused):
            raise to_error(answer)
        return answer

    async def trigger_batch(self, requests: Requests, key: Idempotency | None) -> GivenBatch:
        return await self._outside.trigger_batch(requests, key)

    async def create_token(self, request: TokenRequest) -> TokenCreated:
        return await self._outside.create_token(request)

    async def step(self, name: str, fingerprint: str, execute: Callable[[], Awaitable[str | None]]) -> str | None:
        return await execute()

    async def wait_until(self, until: When, *, key: WaitKey | None = None) -> None:
        seconds = (until if isinstance(until, timedelta) else until - datetime.now(UTC)).total_seconds()
        if seconds > SLEPT_IN_PROCESS:
            self._refuse("waits longer than 5 s")
        await asyncio.sleep(max(0.0, seconds))

    async def trigger_and_wait(self, request: TriggerRequest) -> RunOutcome:
        self._refuse("waits for a run")

    async def trigger_batch_and_wait(self, requests: Requests) -> tuple[BatchId, Sequence[RunOutcome]]:
        self._refuse("waits for a batch")

    async def wait_for_token(self, token_id: WaitpointId) -> WaitResult:
        self._refuse("waits for a token")

    def _refuse(self, what: str) -> NoReturn:
        raise HookWaitError(self.attempt.run_id, what)


@contextmanager
def hooking(scope: AttemptScope, place: str) -> Iterator[None]:
    """Call hooks in the block. They leave no trace in the paths of the run's code: a replay does not take them again."""
    line = here()
    if line is None:
        with run_scope.entered(HookScope(scope)):
            yield
        return
    path, line.path = line.path, Path(place)
    try:
        with run_scope.entered(HookScope(scope)):
            yield
    finally:
        line.path = path
