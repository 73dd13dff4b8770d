"""What a command calls: the SDK's client for all that it offers, the backend for the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from detent.cli import database
from detent.engine.backend import connect
from detent.protocol.backend import CallerBackend
from detent.sdk.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    client: Client
    backend: CallerBackend


@asynccontextmanager
async def calling(dsn: str, environment: str) -> AsyncIterator[Caller]:
    """Yield what speaks to an environment of a database; each part connects at its first call."""
    listen_url = database.listened_to()
    backend = connect(dsn, environment=environment, size=1, listen_url=listen_url)
    async with Client(database_url=dsn, environment=environment, listen_url=listen_url) as client:
        try:
            yield Caller(client=client, backend=backend)
        finally:
            await backend.close()
