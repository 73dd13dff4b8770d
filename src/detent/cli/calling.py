"""What a command calls: the SDK's client for all that it offers, the backend for the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from detent.cli import database

if TYPE_CHECKING:
    from detent.protocol.backend import WorkerBackend
    from detent.sdk.client import Client

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    client: Client
    backend: WorkerBackend
    carry_on: Callable[[], Awaitable[bool]]
    """Does a part of what is left to the workers: a bulk action goes on without any. False: there is nothing."""


def call(environment: str, made: Callable[[Caller], Awaitable[T]]) -> T:
    """Return what a call comes to in an environment of the command's database."""

    async def carried_out() -> T:
        async with database.opened() as dsn, calling(dsn, environment) as caller:
            return await made(caller)

    return asyncio.run(carried_out())


@asynccontextmanager
async def calling(dsn: str, environment: str) -> AsyncIterator[Caller]:
    """Yield what speaks to an environment of a database; each part connects at its first call."""
    # Loaded when something is called: the help of a command needs neither.
    from detent.engine.backend import connect
    from detent.sdk.client import Client

    listen_url, key = database.listened_to(), database.encryption_key()
    backend = connect(dsn, environment=environment, size=1, listen_url=listen_url, encryption_key=key)
    maintenance = backend.maintenance
    async with Client(
        database_url=dsn, environment=environment, listen_url=listen_url, encryption_key=key
    ) as client:
        try:
            yield Caller(client=client, backend=backend, carry_on=maintenance.carry_on)
        finally:
            await maintenance.close()
            await backend.close()
