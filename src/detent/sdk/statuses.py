"""Statuses of HTTP, as a user names them: 429, "429", "5xx", "500-599", "408, 429, 5xx", range(500, 600)."""

from __future__ import annotations

import re
from typing import NoReturn, TypeAlias

from detent.errors import DefinitionError

Statuses: TypeAlias = str | int | range

_FORM = re.compile(r"(?P<lowest>\d{3})(?:-(?P<highest>\d{3}))?|(?P<start>\d{1,2})(?P<any>x{1,2})")


def contains(statuses: Statuses, status: int) -> bool:
    """Return whether a status is among *statuses*. Raises `DefinitionError` where they are none.

    >>> contains("408, 429, 5xx", 503)
    True
    """
    return any(status in each for each in read(statuses))


def read(statuses: Statuses) -> tuple[range, ...]:
    """Return the statuses that are meant. Raises `DefinitionError` where none can be."""
    match statuses:
        case range():
            return (statuses,)
        case int():
            return (range(statuses, statuses + 1),)
        case str():
            return tuple(_range_of(part.strip(), statuses) for part in statuses.split(","))
    return _refuse(statuses)


def _range_of(part: str, statuses: str) -> range:
    form = _FORM.fullmatch(part)
    if form is None or len(part) not in (3, 7):
        _refuse(statuses)
    if form["lowest"]:
        found = range(int(form["lowest"]), int(form["highest"] or form["lowest"]) + 1)
        return found or _refuse(statuses)
    width = 10 ** len(form["any"])
    return range(int(form["start"]) * width, (int(form["start"]) + 1) * width)


def _refuse(statuses: object) -> NoReturn:
    raise DefinitionError(
        f'{statuses!r} names no statuses; one is 429 or "429", many are "5xx", "500-599", "408, 429, 5xx" or range(500, 600)'
    )
