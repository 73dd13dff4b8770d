"""Ways to make calls on different connections meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from psycopg import AsyncConnection

from tests.pooler import direct

T = TypeVar("T")


async def race(*calls: Awaitable[Any]) -> list[Any]:
    """Send calls at the same moment, and return what each answered."""
    async with asyncio.timeout(20):
        return list(await asyncio.gather(*calls))


@dataclass(slots=True)
class Blockade:
    holder: AsyncConnection
    observer: AsyncConnection

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str) -> AsyncIterator[Blockade]:
        async with (
            await AsyncConnection.connect(direct(dsn)) as holder,
            await AsyncConnection.connect(direct(dsn), autocommit=True) as observer,
        ):
            yield cls(holder, observer)

    async def pile_up(self, statement: str, params: Sequence[object], *calls: Coroutine[Any, Any, T]) -> list[T]:
        """Lock what *statement* locks, let each call run into it, the next when the one before stands still, then let go.

        Which goes first afterwards is the order in which they came: PostgreSQL's queue for a lock is fair.
        """
        await self.lock(statement, params)
        tasks: list[asyncio.Task[T]] = []
        for call in calls:
            tasks.append(asyncio.create_task(call))
            await self.until_blocked(len(tasks), tasks)
        await self.let_go()
        async with asyncio.timeout(20):
            return list(await asyncio.gather(*tasks))

    async def lock(self, statement: str, params: Sequence[object] = ()) -> None:
        await self.holder.execute(statement.encode(), params)

    async def let_go(self) -> None:
        await self.holder.rollback()

    async def until_blocked(self, count: int, tasks: Sequence[asyncio.Task[Any]] = ()) -> None:
        """Return when so many calls wait for a lock; those of *tasks* that are done count, too."""
        async with asyncio.timeout(20):
            while await self._count_blocked() + sum(task.done() for task in tasks) < count:
                pass

    async def _count_blocked(self) -> int:
        cursor = await self.observer.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        )
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])
