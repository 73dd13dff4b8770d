"""Where a call goes: into the present run, where it is journalled; else to the default database; or to one that was named."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from detent.errors import ConfigError, NotFoundError
from detent.sdk import scope as run_scope

if TYPE_CHECKING:
    from detent.protocol.backend import CallerBackend
    from detent.protocol.idempotency import Idempotency
    from detent.protocol.ids import BatchId
    from detent.protocol.refusal import Refused
    from detent.protocol.tokens import TokenCreated, TokenRequest
    from detent.protocol.triggering import Triggered, TriggerRequest
    from detent.sdk.chunks import GivenBatch, Requests
    from detent.sdk.connection import Connection, Connections
    from detent.sdk.scope import RunScope


class Target(Protocol):
    """What the namespaces need of the place they speak to."""

    @property
    def environment(self) -> str: ...

    def connection(self) -> Connection: ...

    def trigger(self, request: TriggerRequest) -> Awaitable[Triggered | Refused]: ...

    async def trigger_batch(self, requests: Requests, key: Idempotency | None) -> GivenBatch:
        """Give a batch; with the *key* of one that was given whole before, nothing of it is given again."""
        ...

    async def create_token(self, request: TokenRequest) -> TokenCreated:
        """Make a token. Raises the `ApiError` of a refusal."""
        ...

    def run(self, call: str) -> RunScope:
        """Return the run that *call* waits in; raises `OutsideRunError`."""
        ...


class Named:
    """A database that the user named: nothing of a present run is involved. Without an environment, the process names it."""

    def __init__(self, connect: Callable[[], CallerBackend], environment: str | None = None) -> None:
        self._connect, self._environment = connect, environment

    @property
    def environment(self) -> str:
        return self._environment or _default_environment()

    @cached_property
    def connections(self) -> Connections:
        # Loaded when something is called: code that only defines tasks needs no event loop.
        from detent.sdk.connection import Connections

        return Connections(self._connect)

    def connection(self) -> Connection:
        return self.connections.here()

    def trigger(self, request: TriggerRequest) -> Awaitable[Triggered | Refused]:
        return self.connections.here().trigger(request)

    async def trigger_batch(self, requests: Requests, key: Idempotency | None) -> GivenBatch:
        from detent.protocol.batches import BatchCreated, BatchCreation
        from detent.protocol.ids import new_batch_id
        from detent.sdk.chunks import Sending

        backend = self.connections.here().backend
        if key is None:
            return await Sending(backend, new_batch_id()).carry_out(requests)
        created = await backend.create_batch(BatchCreation(batch_id=new_batch_id(), key=key))
        assert isinstance(created, BatchCreated)  # it names no run
        if created.is_sealed:
            return await _given_before(backend, created.batch_id)
        given = await Sending(backend, created.batch_id).carry_out(requests)
        return replace(given, is_cached=created.is_cached)

    async def create_token(self, request: TokenRequest) -> TokenCreated:
        from detent.protocol.fence import Stale
        from detent.protocol.refusal import Refused, to_error

        (answer,) = await self.connections.here().backend.create_tokens([request])
        if isinstance(answer, Refused):
            raise to_error(answer)
        assert not isinstance(answer, Stale)  # it names no run
        return answer

    def run(self, call: str) -> RunScope:
        raise TypeError(
            f"{call} of a client that was made by hand cannot wait inside a run: its database may be another one; "
            "use the task's own method, or trigger_and_poll"
        )


class Here:
    """The present run, if there is one; else the default client's database."""

    def __init__(self) -> None:
        self._outside = Named(_connect_default)
        self._inside: tuple[CallerBackend, Connection] | None = None

    @property
    def environment(self) -> str:
        present = run_scope.current()
        return self._outside.environment if present is None else present.context.environment.name

    def connection(self) -> Connection:
        present = run_scope.current()
        return self._outside.connection() if present is None else self._of_worker(present.backend)

    def trigger(self, request: TriggerRequest) -> Awaitable[Triggered | Refused]:
        present = run_scope.current()
        return self._outside.trigger(request) if present is None else present.trigger(request)

    async def trigger_batch(self, requests: Requests, key: Idempotency | None) -> GivenBatch:
        present = run_scope.current()
        return await (self._outside if present is None else present).trigger_batch(requests, key)

    async def create_token(self, request: TokenRequest) -> TokenCreated:
        present = run_scope.current()
        return await (self._outside if present is None else present).create_token(request)

    def run(self, call: str) -> RunScope:
        return run_scope.require(call)

    def _of_worker(self, backend: CallerBackend) -> Connection:
        """The worker opened this backend, and closes it."""
        from detent.sdk.connection import Connection

        if self._inside is None or self._inside[0] is not backend:
            self._inside = backend, Connection(backend)
        return self._inside[1]


async def _given_before(backend: CallerBackend, batch_id: BatchId) -> GivenBatch:
    from detent.sdk.chunks import GivenBatch

    (record,) = await backend.retrieve_batches([batch_id])
    if record is None:
        raise NotFoundError(f"batch {batch_id} is gone since its key was looked up; trigger it again", code="batch_not_found")
    return GivenBatch(batch_id=batch_id, count=record.run_count, cached=record.run_ids.cached, is_cached=True)


def connect(
    database_url: str, environment: str, *, listen_url: str | None = None, encryption_key: str | None = None
) -> CallerBackend:
    """Return the engine at a database. It opens nothing before its first call."""
    from detent.engine.backend import connect as connect_engine

    return connect_engine(
        database_url, environment=environment, listen_url=listen_url, encryption_key=encryption_key
    )


def _default_environment() -> str:
    # Loaded when something is called.
    from detent.protocol import environments

    return environments.named_by(os.environ)


def _connect_default() -> CallerBackend:
    if os.environ.get("DETENT_API_URL") and os.environ.get("DETENT_SECRET_KEY"):
        raise ConfigError(
            "DETENT_API_URL and DETENT_SECRET_KEY are set, but calls over HTTP come later; unset DETENT_SECRET_KEY, and give "
            "the database's own address as DETENT_DATABASE_URL"
        )
    environment = _default_environment()
    if database_url := os.environ.get("DETENT_DATABASE_URL"):
        return connect(database_url, environment, listen_url=os.environ.get("DETENT_LISTEN_URL") or None)
    return _connect_embedded(environment)


def _connect_embedded(environment: str) -> CallerBackend:
    """Return the engine at the embedded server that runs for the project around the working directory."""
    from pathlib import Path

    from detent.postgres import embedded, encryption_key

    present = Path.cwd()
    for folder in (present, *present.parents):
        found = embedded.running(folder / ".detent")
        if found is not None:
            key = os.environ.get("DETENT_ENCRYPTION_KEY") or encryption_key.read_or_make(folder / ".detent")
            return connect(found, environment, encryption_key=key)
    raise ConfigError(
        f"there is no database to speak to: DETENT_DATABASE_URL is not set, and no embedded database runs for {present}; "
        "set it, or start `detent dev` in the project's folder"
    )


HERE = Here()
