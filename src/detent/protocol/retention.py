"""How long runs are kept after their end: what a project says, and the rules it comes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias, cast

from detent.duration import Duration, parse
from detent.errors import DefinitionError
from detent.protocol.status import FINAL, RunStatus

Kept: TypeAlias = Duration | None
"""Whole days after the end; None is for ever."""

DAY = timedelta(days=1)
LONGEST = timedelta(days=3650)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRule:
    """Runs of this task and with this final status are kept so many days; None means every task, every status, for ever."""

    task_id: str | None = None
    status: RunStatus | None = None
    keep_days: int | None

    @classmethod
    def from_fields(cls, fields: Mapping[str, str | int | None]) -> RetentionRule:
        """Return the rule of which these are the fields, as JSON gives them back."""
        return cls(
            task_id=cast("str | None", fields["task_id"]),
            status=RunStatus(str(fields["status"])) if fields["status"] else None,
            keep_days=cast("int | None", fields["keep_days"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long runs are kept after their end, with all that belongs to them: whole days, or None for ever.

    `statuses` names final statuses, `tasks` ids of tasks; a task may again say it by status. The most specific rule wins: task
    and status, then task, then status, then `default`.

    >>> Retention(statuses={"COMPLETED": "7d"}, tasks={"noisy": "1d", "charge": {"FAILED": None}}).rules()[1].keep_days
    7
    """

    default: Kept = "30d"
    statuses: Mapping[str, Kept] = field(default_factory=dict)
    tasks: Mapping[str, Kept | Mapping[str, Kept]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rules()

    def rules(self) -> tuple[RetentionRule, ...]:
        """Return what this comes to, the default first. Raises `DefinitionError` for what is no status or no number of days."""
        return (
            RetentionRule(keep_days=_days("default", self.default)),
            *_by_status("statuses", None, self.statuses),
            *(rule for task_id, kept in _named("tasks", self.tasks) for rule in _of_task(task_id, kept)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionRecord:
    """A table that holds what is over: a period of it, or what has none."""

    name: str
    keep_days: int | None
    """None is for ever, or as long as something needs it."""
    starts_at: datetime | None
    ends_at: datetime | None
    goes_at: datetime | None
    """When it is dropped; None for one that has no period."""
    rows: int
    """As the database last counted or estimated them."""
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRecord:
    """The rules of an environment, the most general first, and the partitions of all environments."""

    rules: tuple[RetentionRule, ...]
    partitions: tuple[PartitionRecord, ...]


def _of_task(task_id: str, kept: object) -> Iterator[RetentionRule]:
    place = f"tasks[{task_id!r}]"
    if isinstance(kept, Mapping):
        yield from _by_status(place, task_id, kept)
    else:
        yield RetentionRule(task_id=task_id, keep_days=_days(place, kept))


def _by_status(place: str, task_id: str | None, statuses: object) -> Iterator[RetentionRule]:
    for name, kept in _named(place, statuses):
        if name not in FINAL:
            known = ", ".join(sorted(FINAL))
            raise DefinitionError(f"Retention({place}): {name!r} is no final status; these are {known}")
        yield RetentionRule(task_id=task_id, status=RunStatus(name), keep_days=_days(f"{place}[{name!r}]", kept))


def _named(place: str, given: object) -> Iterator[tuple[str, object]]:
    if not isinstance(given, Mapping):
        raise DefinitionError(f'Retention({place}={given!r}): it must be a dict such as {{"a name": "7d"}}')
    for name, kept in given.items():
        if not isinstance(name, str) or not name:
            raise DefinitionError(f"Retention({place}): {name!r} is no name")
        yield name, kept


def _days(place: str, kept: object) -> int | None:
    if kept is None:
        return None
    try:
        duration = parse(kept)  # type: ignore[arg-type]  # what is no duration is refused by it
    except ValueError as error:
        raise DefinitionError(f"Retention({place}={kept!r}): {error}") from error
    if duration % DAY or not DAY <= duration <= LONGEST:
        raise DefinitionError(
            f'Retention({place}={kept!r}): runs are kept for whole days, 1 to {LONGEST.days}; say "1d", "2w", or None for ever'
        )
    return duration.days
