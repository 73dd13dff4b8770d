"""A fresh, migrated database, and what is asked of it beside the SDK."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg.abc import Params

from benchmarks.measuring import MeasurementError

RUN_STATES = "select status::text, count(*) from detent.all_runs group by 1 order by 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    dsn: str
    name: str
    connection: psycopg.Connection

    def value(self, query: LiteralString, params: Params | None = None) -> object:
        """Return the only column of the only row."""
        rows = self.connection.execute(query, params).fetchall()
        if len(rows) != 1:
            raise MeasurementError(f"one row was expected of {query!r}, {len(rows)} came")
        value: object = rows[0][0]
        return value

    def number(self, query: LiteralString, params: Params | None = None) -> float:
        value = self.value(query, params)
        if value is None:
            raise MeasurementError(f"a number was expected of {query!r}")
        return float(str(value))

    def live_runs(self) -> int:
        return int(self.number("select count(*) from detent.runs"))

    def live_sessions(self) -> int:
        return int(self.number("select count(*) from detent.sessions where ended_at is null"))

    def await_end_of_runs(self, *, but: int = 0, within: float = 120) -> None:
        """Return, within some milliseconds, when every run is over, but for some."""
        deadline = time.monotonic() + within
        while (left := self.live_runs() - but) > 0:
            if time.monotonic() > deadline:
                raise MeasurementError(f"{left} runs were not over after {within:.0f} s")
            # Seldom while many are left, for asking takes time from what is measured; often towards the end, which is timed.
            time.sleep(min(0.1, max(0.002, left / 100_000)))

    def check_completed(self, expected: int) -> None:
        """Raise unless so many runs were made in this database, and all are COMPLETED."""
        states: dict[str, int] = dict(self.connection.execute(RUN_STATES).fetchall())
        if states != {"COMPLETED": expected}:
            raise MeasurementError(f"{expected} runs should be COMPLETED, but there are {states}")
