"""`Client`: another database than the default one, for programs that speak to several."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from detent.errors import ConfigError
from detent.protocol import environments
from detent.sdk import target
from detent.sdk.batch import Batch
from detent.sdk.blocking import blocking
from detent.sdk.concurrency_limits import ConcurrencyLimits
from detent.sdk.envvars import EnvVars
from detent.sdk.idempotency_keys import IdempotencyKeys
from detent.sdk.queues import Queues
from detent.sdk.runs import Runs
from detent.sdk.schedules import Schedules
from detent.sdk.tasks import Tasks
from detent.sdk.wait import Wait


class Client:
    """The namespaces for the database that is named: `tasks`, `batch`, `runs`, `wait` (of which: tokens), `idempotency_keys`,
    `queues`, `concurrency_limits`, `schedules` and `envvars`.

    Example::

        async with Client(database_url="postgresql://…") as client:
            await client.tasks.trigger("charge", {"id": "o1", "amount": 5})

    - `listen_url`: a direct connection to the same database, where the other one goes through PgBouncer.
    - `environment`: default `"dev"`. `branch`: the branch of a preview: `Client(environment="preview", branch="feat/x")`.
    - `encryption_key`: what environment variables are sealed with; default DETENT_ENCRYPTION_KEY.
    Raises `ConfigError` for names that are none.

    It opens what it needs at the first call, one connection pool for each event loop, and anew after a fork. Triggers
    through a client are not part of a run that makes them: they are not journalled.
    """

    label = "client"

    def __init__(
        self,
        *,
        database_url: str | None = None,
        listen_url: str | None = None,
        environment: str = environments.DEFAULT,
        branch: str | None = None,
        encryption_key: str | None = None,
        api_url: str | None = None,
        secret_key: str | None = None,
    ) -> None:
        if api_url is not None or secret_key is not None:
            raise ConfigError("clients over HTTP come later; give Client(database_url=...), the database's own address")
        if not database_url:
            raise ConfigError("Client needs database_url=, such as postgresql://user@host/name")
        url, name = database_url, environments.chosen(environment, branch)
        self._named = named = target.Named(
            lambda: target.connect(url, name, listen_url=listen_url, encryption_key=encryption_key), name
        )
        self.tasks = Tasks(named)
        self.batch = Batch(named)
        self.runs = Runs(named)
        self.wait = Wait(named)
        self.idempotency_keys = IdempotencyKeys(named)
        self.queues = Queues(named)
        self.concurrency_limits = ConcurrencyLimits(named)
        self.schedules = Schedules(named)
        self.envvars = EnvVars(named)
        self.sync = ClientSync(self)

    async def close(self) -> None:
        """Close the connections of the running event loop. A further call opens new ones."""
        await self._named.connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class ClientSync:
    """A client's namespaces as blocking calls: `with client.sync as blocking: blocking.tasks.trigger(...)`."""

    def __init__(self, client: Client) -> None:
        self.tasks = client.tasks.sync
        self.batch = client.batch.sync
        self.runs = client.runs.sync
        self.wait = client.wait.sync
        self.idempotency_keys = client.idempotency_keys.sync
        self.queues = client.queues.sync
        self.concurrency_limits = client.concurrency_limits.sync
        self.schedules = client.schedules.sync
        self.envvars = client.envvars.sync
        self.close = blocking(client.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
