"""What a database must allow, judged: rights, clock, pooler, wake-ups, schema."""

from __future__ import annotations

from collections.abc import Iterator

from detent import migrations
from detent.cli.database import LISTEN_URL, URL
from detent.cli.finding import Finding, ok, warning, wrong
from detent.engine.reach import Hearing, Reach
from detent.errors import DatabaseRightsError, SchemaDriftError, SchemaVersionError

MOST_APART = 1.0
"""Seconds between two clocks that nobody minds."""


def judge(reach: Reach, target: str, *, listens_apart: bool) -> Iterator[Finding]:
    """Judge a database; *listens_apart* says whether another address was given for wake-ups."""
    yield ok("database", f"PostgreSQL {reach.server_version} at {target}")
    yield _rights(reach)
    yield _clock(reach)
    yield _wake_ups(reach, listens_apart=listens_apart)


async def check_schema(dsn: str) -> Finding:
    """Check the schema of a database. Raises `DatabaseUnreachableError` and `DatabaseVersionError`."""
    try:
        missing = await migrations.plan(dsn)
    except (SchemaVersionError, SchemaDriftError, DatabaseRightsError) as error:
        return wrong("schema", str(error))
    if not missing:
        return ok("schema", "up to date")
    names = ", ".join(map(str, missing))
    return wrong("schema", f"{len(missing)} migrations are missing ({names}): run `detent migrate`")


def _rights(reach: Reach) -> Finding:
    user = f'user "{reach.user}"'
    if reach.is_read_only:
        return wrong(
            "rights", f"the server takes no writes: {URL} must name the primary, and no standby or read-only database"
        )
    if not reach.may_create:
        return wrong(
            "rights", f"{user} may not make the schema: grant create on the database to it, or migrate as its owner"
        )
    if reach.barred_tables:
        tables = ", ".join(reach.barred_tables)
        return wrong(
            "rights",
            f"{user} may not read and write {tables}: grant it all rights in the schema detent, or be its owner",
        )
    if reach.owners:
        owner = ", ".join(reach.owners)
        text = f"{user} does not own the partitions, so it can neither make nor drop them: grant {owner} to it"
        return warning("rights", text)
    return ok("rights", f"{user} may do what detent does")


def _clock(reach: Reach) -> Finding:
    apart = abs(reach.clock_ahead)
    direction = "ahead of" if reach.clock_ahead > 0 else "behind"
    if apart - reach.clock_doubt > MOST_APART:
        text = f"the database's clock is {apart:.1f} s {direction} this machine's: let both keep time by NTP, or dates are off"
        return warning("clock", text)
    return ok("clock", f"{max(apart, reach.clock_doubt):.3f} s from the database's at most")


def _wake_ups(reach: Reach, *, listens_apart: bool) -> Finding:
    match reach.hearing:
        case Hearing.HEARD:
            return ok("wake-ups", f"heard{' through ' + LISTEN_URL if listens_apart else ''}")
        case Hearing.UNREACHABLE:
            return wrong("wake-ups", f"cannot connect to {LISTEN_URL}: correct it, or unset it and live with polling")
        case Hearing.DEAF if listens_apart:
            text = f"what {URL} announces is not heard through {LISTEN_URL}: it must be a direct connection to the same database"
            return wrong("wake-ups", text)
        case _:
            pooler = "a pooler stands before the database and" if reach.is_pooled else "the database"
            return warning(
                "wake-ups",
                f"{pooler} passes none on, so runs start within 2 s: name a direct connection in {LISTEN_URL}",
            )
