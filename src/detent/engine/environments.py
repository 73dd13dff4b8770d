"""Environments in the database: found or made at their first use, listed, archived."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import datetime
from typing import cast
from uuid import UUID

from detent.engine.db import Db, Row
from detent.errors import BadRequestError, ConflictError
from detent.protocol import environments, ids
from detent.protocol.environments import Environment, EnvironmentRecord, EnvironmentType
from detent.protocol.flow import LimitKind
from detent.protocol.refusal import Refused

FRESH_SECONDS = 2.0
"""So long it is not asked again whether an environment was archived."""


class KnownEnvironment:
    """An environment of which it is remembered for two seconds that it may be written to."""

    def __init__(self, db: Db, row: Row) -> None:
        self._db = db
        number, slug, kind, branch, archived_at = row
        self.number = cast("int", number)
        self.name = str(slug)
        self._is_archived, self._asked_at = archived_at is not None, time.monotonic()
        self.public = Environment(
            id=public_id(self.number),
            slug=environments.split(self.name)[0],
            type=EnvironmentType(str(kind)),
            branch_name=cast("str | None", branch),
        )

    @property
    def is_development(self) -> bool:
        return self.public.type is EnvironmentType.DEVELOPMENT

    async def check_writable(self) -> None:
        """Raise `ConflictError` when it is archived."""
        if time.monotonic() - self._asked_at > FRESH_SECONDS:
            ((*_, archived_at),) = await self._db.call("find_environment", {"slug": self.name})
            self._is_archived, self._asked_at = archived_at is not None, time.monotonic()
        if self._is_archived:
            message = (
                f'environment "{self.name}" is archived: nothing can be written to it; '
                f"`detent environments create {self.name}` brings it back"
            )
            raise ConflictError(message, code="environment_archived")


async def find(db: Db, name: str) -> KnownEnvironment | None:
    rows = await db.call("find_environment", {"slug": name})
    return KnownEnvironment(db, rows[0]) if rows else None


async def find_or_make(db: Db, name: str, kind: EnvironmentType | None = None) -> KnownEnvironment:
    """Return an environment, made at its first use. Raises the `ApiError` of a branch of what has no branches."""
    found = await find(db, name)
    while found is None:
        await _make(db, name, kind)
        found = await find(db, name)
    return found


async def create(db: Db, name: str, kind: EnvironmentType | None) -> EnvironmentRecord | Refused:
    made = await find_or_make(db, environments.check(name), kind)
    if kind is not None and made.public.type is not kind:
        message = f'environment "{name}" is of type {made.public.type}, and that is for ever; give another one the type {kind}'
        return Refused(status=409, code="environment_exists", message=message)
    await db.call("set_archived", {"slug": name, "is_archived": False})
    return await _read(db, name)


async def archive(db: Db, name: str) -> EnvironmentRecord | Refused:
    if await find(db, name) is None:
        return not_found(name)
    await db.call("set_archived", {"slug": name, "is_archived": True})
    return await _read(db, name)


async def list_all(db: Db) -> list[EnvironmentRecord]:
    return [_record(row) for row in await db.call("list_environments", {"slug": None})]


def not_found(name: str) -> Refused:
    message = f'there is no environment "{name}"; a worker makes it, or `detent environments create {name}`'
    return Refused(status=404, code="environment_not_found", message=message)


def public_id(number: int) -> str:
    """Return the public id: that of the environment's own limit, as `detent.limit_id` hashes it."""
    text = json.dumps([number, LimitKind.ENVIRONMENT.value, ""])
    return ids.encode("env", UUID(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()))


async def _make(db: Db, name: str, kind: EnvironmentType | None) -> None:
    slug, branch = environments.split(name)
    parent = None if branch is None else await _find_parent(db, slug)
    await db.call(
        "make_environment",
        {
            "slug": name,
            "type": kind if parent is None else EnvironmentType.PREVIEW,
            "parent": None if parent is None else parent.number,
            "branch": branch,
        },
    )


async def _find_parent(db: Db, slug: str) -> KnownEnvironment:
    parent = await find_or_make(db, slug)
    kind = parent.public.type
    if kind is not EnvironmentType.PREVIEW:
        message = f'environment "{slug}" is of type {kind} and has no branches; name one of type PREVIEW, such as preview'
        raise BadRequestError(message, code="no_branches")
    await parent.check_writable()
    return parent


async def _read(db: Db, name: str) -> EnvironmentRecord:
    (row,) = await db.call("list_environments", {"slug": name})
    return _record(row)


def _record(row: Row) -> EnvironmentRecord:
    number, name, kind, branch, created_at, archived_at, queued, running, waiting = row
    return EnvironmentRecord(
        id=public_id(cast("int", number)),
        name=str(name),
        slug=environments.split(str(name))[0],
        type=EnvironmentType(str(kind)),
        branch_name=cast("str | None", branch),
        created_at=cast("datetime", created_at),
        archived_at=cast("datetime | None", archived_at),
        queued=cast("int", queued),
        running=cast("int", running),
        waiting=cast("int", waiting),
    )
