"""A connection that detent can work with, or one clear error that says why there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg import AsyncClientCursor, AsyncConnection, errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from detent.errors import DatabaseRightsError, DatabaseUnreachableError, DatabaseVersionError

OLDEST_SERVER = 15
CONNECT_TIMEOUT = 10


@asynccontextmanager
async def connect(conninfo: str) -> AsyncIterator[AsyncConnection]:
    """Open a connection in autocommit mode that also works through PgBouncer in transaction mode.

    Raises DatabaseUnreachableError, DatabaseVersionError and DatabaseRightsError, the last two also for what is
    refused while it is used.
    """
    async with await _open(conninfo) as connection:
        _check_version(connection)
        user = connection.info.user
        try:
            yield connection
        except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction) as error:
            raise DatabaseRightsError(user, _first_line(error)) from error
        except psycopg.OperationalError as error:
            if not connection.closed:
                raise
            raise DatabaseUnreachableError(target(conninfo), _first_line(error)) from error


def target(conninfo: str) -> str:
    """Where a conninfo leads, without what is secret in it."""
    try:
        facts = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        return "the given address"
    return f"{facts.get('host') or 'the local socket'}:{facts.get('port') or 5432}/{facts.get('dbname') or ''}"


async def _open(conninfo: str) -> AsyncConnection:
    try:
        patient = make_conninfo("", **{"connect_timeout": CONNECT_TIMEOUT, **conninfo_to_dict(conninfo)})
        # Values are put into statements here, not by the server: its portal for a statement with parameters keeps a
        # snapshot until the transaction ends.
        return await AsyncConnection.connect(patient, autocommit=True, cursor_factory=AsyncClientCursor)
    except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
        if "permission denied" in str(error):
            raise DatabaseRightsError(str(conninfo_to_dict(conninfo).get("user")), _first_line(error)) from error
        raise DatabaseUnreachableError(target(conninfo), _first_line(error)) from error


def _check_version(connection: AsyncConnection) -> None:
    found = connection.info.server_version
    if found // 10000 < OLDEST_SERVER:
        raise DatabaseVersionError(f"{found // 10000}.{found % 10000}", OLDEST_SERVER)


def _first_line(error: psycopg.Error) -> str:
    return (str(error).splitlines() or ["no reason given"])[0]
