"""Many rows at once: copies, made by SQL, of one run that was really triggered or that really ran."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from benchmarks.database import Database
from detent import RunHandle
from detent.protocol import ids

COLUMNS = "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped order by attnum"
# uuidv7() rises with its shift, as the ids of runs do with their age. By the clock of detent, which may have been moved.
MAKE_COPIES = """
create temporary table copies as
select original, uuidv7(shift) as id, clock_timestamp() + shift as at
from (select detent.now() - clock_timestamp() as moved offset 0) as clock, unnest({originals}::uuid[]) as original,
  generate_series(1, {count}) as i,
  lateral (select moved + make_interval(secs => {seconds} * (i::float8 / {count} - 1)) as shift)
"""
# The originals first: joined to a large table, the planner would read all of that.
INSERT_COPIES = """
with original as materialized (select * from {table} where {id} = any({originals}))
insert into {table} ({columns}) select {values} from copies join original on original.{id} = copies.original
"""
SECONDS_OF_TODAY = "select extract(epoch from now() at time zone 'utc' - date_trunc('day', now() at time zone 'utc'))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    name: LiteralString
    id: str
    moments: tuple[str, ...]
    """What differs from copy to copy, besides the id."""

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier("detent", self.name)


LIVE = (
    Table(name="runs", id="id", moments=("position", "queued_at")),
    Table(name="inputs", id="run_id", moments=("created_at",)),
    Table(name="ready", id="run_id", moments=("position",)),
)
LOGS = Table(name="logs", id="run_id", moments=("at",))
HISTORY = Table(name="history", id="id", moments=("created_at", "queued_at", "started_at", "finished_at"))


def queue(database: Database, count: int) -> None:
    """Queue copies of a run that waits in the queue."""
    _copy_queued(database, count)
    settle_queue(database)


def queue_each(database: Database, waiting: Sequence[RunHandle[int]], count: int) -> None:
    """Queue so many copies of each of these runs, which wait in the queue."""
    _copy(database, LIVE, [ids.decode("run", handle.id) for handle in waiting], count, seconds=1)
    settle_queue(database)


def settle_queue(database: Database) -> None:
    _settle(database, LIVE)


def come_and_go(database: Database, count: int) -> None:
    """Leave behind the dead rows that so many runs leave in the tables of live ones."""
    with database.connection.transaction():
        _copy_queued(database, count)
        for table in LIVE:
            delete = sql.SQL("delete from {} where {} in (select id from copies)")
            database.connection.execute(delete.format(table.identifier, sql.Identifier(table.id)))


def finish(database: Database, count: int) -> None:
    """Put copies of a run that is over into the history of today."""
    original = database.value("select id from detent.history limit 1")
    _copy(database, [HISTORY], [original], count, seconds=database.number(SECONDS_OF_TODAY))
    _settle(database, [HISTORY])


def finish_a_day(database: Database, count: int) -> None:
    """Put copies of a run that is over into the history of the last 24 hours, with its lines."""
    original = database.value("select run_id from detent.logs limit 1")
    _copy(database, (HISTORY, LOGS), [original], count, seconds=86_400)
    _settle(database, (HISTORY, LOGS, *LIVE))


def _copy_queued(database: Database, count: int) -> None:
    original = database.value("select run_id from detent.ready limit 1")
    _copy(database, LIVE, [original], count, seconds=1)


def _copy(database: Database, tables: Iterable[Table], originals: list[object], count: int, *, seconds: float) -> None:
    """Make so many copies of each original, with ids and moments spread over the last *seconds*."""
    make = sql.SQL(MAKE_COPIES).format(originals=sql.Literal(originals), count=count, seconds=seconds)
    database.connection.execute("drop table if exists copies")
    database.connection.execute(make)
    for table in tables:
        _insert(database, table, originals)


def _insert(database: Database, table: Table, originals: list[object]) -> None:
    columns = [name for (name,) in database.connection.execute(COLUMNS, (f"detent.{table.name}",)).fetchall()]
    insert = sql.SQL(INSERT_COPIES)
    database.connection.execute(
        insert.format(
            table=table.identifier,
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
            values=sql.SQL(", ").join(_value(table, column) for column in columns),
            id=sql.Identifier(table.id),
            originals=sql.Literal(originals),
        )
    )


def _value(table: Table, column: str) -> sql.Identifier:
    if column == table.id:
        return sql.Identifier("copies", "id")
    return sql.Identifier("copies", "at") if column in table.moments else sql.Identifier("original", column)


def _settle(database: Database, tables: Iterable[Table]) -> None:
    """Do now what autovacuum and the checkpointer would otherwise do in the midst of the measurement."""
    for table in tables:
        database.connection.execute(sql.SQL("vacuum analyze {}").format(table.identifier))
    database.connection.execute("checkpoint")
