"""The database that a command is about: the one DETENT_DATABASE_URL names, else the project's embedded one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from detent.cli import project
from detent.cli.project import Project
from detent.errors import ConfigError

if TYPE_CHECKING:
    from detent.postgres.embedded import EmbeddedServer

URL = "DETENT_DATABASE_URL"
LISTEN_URL = "DETENT_LISTEN_URL"
ENCRYPTION_KEY = "DETENT_ENCRYPTION_KEY"


def named() -> str | None:
    """Return the database that the environment names."""
    return os.environ.get(URL) or None


def listened_to() -> str | None:
    """Return the direct connection to the named database that the environment names beside it, for LISTEN."""
    return os.environ.get(LISTEN_URL) or None if named() else None


def encryption_key() -> str | None:
    """Return the key of environment variables; None is for what DETENT_ENCRYPTION_KEY says.

    The embedded database has one of its own, made when it is first asked for.
    """
    from detent.postgres import encryption_key

    if named() or os.environ.get(ENCRYPTION_KEY):
        return None
    found = project.find(Path.cwd())
    return None if found is None or not found.folder.is_dir() else encryption_key.read_or_make(found.folder)


@asynccontextmanager
async def opened() -> AsyncIterator[str]:
    """Yield the dsn of a database whose schema is the one that this detent needs.

    An embedded one is started if no other process has; it runs at least until the end of the command. Raises `DatabaseError`.
    """
    from detent import migrations

    async with unprepared() as dsn:
        if named():
            await migrations.verify(dsn)
        else:
            await migrations.apply(dsn)
        yield dsn


@asynccontextmanager
async def unprepared() -> AsyncIterator[str]:
    """Yield the dsn of the database, whatever its schema."""
    if url := named():
        yield url
        return
    with start_embedded(_project()) as server:
        yield server.dsn


def start_embedded(project: Project) -> EmbeddedServer:
    """Start a project's embedded database, or join those who use it. Raises `EmbeddedServerError`."""
    from detent.postgres import embedded

    server = embedded.start(project.folder)
    ignore = project.folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    return server


def _project() -> Project:
    found = project.find(Path.cwd())
    if found is None:
        raise ConfigError(
            f"there is no detent project in {Path.cwd()} or above it, and {URL} is not set; "
            "go to your project, make one with `detent init`, or set it"
        )
    return found
