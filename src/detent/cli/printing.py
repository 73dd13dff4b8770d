"""What commands print on stdout: JSON for programs, tables and lines for people."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from detent.protocol.flow import Bound

_UNBOUNDED = 10_000
_STYLES = {
    "COMPLETED": "green",
    "EXECUTING": "cyan",
    "DEQUEUED": "cyan",
    "WAITING": "magenta",
    "CANCELED": "yellow",
    "FAILED": "red",
    "CRASHED": "red",
    "SYSTEM_FAILURE": "red",
    "TIMED_OUT": "red",
    "EXPIRED": "red",
}


def mute() -> None:
    """Let stdout lead nowhere: its reader has gone (`detent runs list | head`), and nothing may fail for it any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def as_json(value: object) -> None:
    """Print a value as JSON: indented for a terminal, on one line for a program."""
    indent = 2 if sys.stdout.isatty() else None
    print(json.dumps(value, indent=indent, default=_plain, ensure_ascii=False))


def json_line(value: object) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table. Only a terminal cuts it to its width."""
    from rich.table import Table
    from rich.text import Text

    cells = list(rows)
    grid = Table(*columns, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in grid.columns:
        column.overflow, column.no_wrap = "ellipsis", True
    # An id that is cut is of no use.
    grid.columns[0].min_width = max((len(row[0]) for row in cells), default=0)
    for row in cells:
        grid.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console().print(grid)


def console() -> Console:
    """Return a console on stdout that writes to pipes what it would write to an endless line."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNBOUNDED, soft_wrap=not sys.stdout.isatty())


def seconds(duration: float | timedelta | None) -> str:
    """Return a duration for people.

    >>> [seconds(0.0123), seconds(3.21), seconds(75), seconds(7322)]
    ['12 ms', '3.2 s', '1 m 15 s', '2 h 2 m']
    """
    if duration is None:
        return ""
    total = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if total < 1:
        return f"{total * 1000:.0f} ms"
    if total < 60:
        return f"{total:.1f} s"
    minutes, rest = divmod(int(total), 60)
    return f"{minutes} m {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} m"


def size(count: int) -> str:
    """Return a number of bytes for people.

    >>> [size(512), size(8192), size(3_500_000_000)]
    ['512 B', '8 kB', '3.3 GB']
    """
    if count < 1024:
        return f"{count} B"
    units = iter(("kB", "MB", "GB", "TB"))
    value, unit = count / 1024, next(units)
    while value >= 1024 and unit != "TB":
        value, unit = value / 1024, next(units)
    return f"{value:.3g} {unit}"


def ago(moment: datetime | None) -> str:
    """Return a past moment for people; to come ones are `in …`."""
    if moment is None:
        return ""
    passed = (datetime.now(UTC) - moment).total_seconds()
    return f"{seconds(max(1, int(passed)))} ago".replace(".0", "") if passed >= 0 else f"in {seconds(-passed)}"


def bound(bound: Bound) -> str:
    """Return what a limit allows, for people.

    >>> from detent.protocol.flow import Bound
    >>> [bound(Bound(base=5)), bound(Bound()), bound(Bound(base=5, override=9, overridden_at=datetime.now(UTC)))]
    ['5', 'none', '9 (declared: 5)']
    """
    current = _number(bound.current)
    return current if bound.overridden_at is None else f"{current} (declared: {_number(bound.base)})"


def _number(number: int | None) -> str:
    return "none" if number is None else str(number)


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Enum():
            return value.value
        case set() | frozenset():
            return sorted(value)
        case Sequence():
            return list(value)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")
