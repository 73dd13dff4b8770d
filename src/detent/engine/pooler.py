"""Telling a connection to PostgreSQL from one to a pooler before it, such as PgBouncer in transaction mode.

Behind a pooler the next statement may meet another server process: names of prepared statements mean there what somebody
else has prepared, perhaps another statement with as many parameters, and LISTEN stays with a process that nobody reads from.
"""

from __future__ import annotations

from psycopg import AsyncConnection


async def is_pooled(connection: AsyncConnection[tuple[object, ...]]) -> bool:
    """Return whether a pooler answers: it invents the process id that it names at the start, for it has no process yet."""
    cursor = await connection.execute("select pg_backend_pid()", prepare=False)
    return await cursor.fetchone() != (connection.info.backend_pid,)
