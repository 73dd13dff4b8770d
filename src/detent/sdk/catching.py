"""What a `catch_error` hook decides about a failed attempt. The engine still refuses attempts beyond `max_attempts`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from detent.duration import Duration, parse
from detent.errors import DefinitionError
from detent.protocol.retry import Retry


@dataclass(frozen=True, slots=True)
class SkipRetrying:
    """Fail now, whatever attempts are left; with *error* in place of the run's own, if it is given."""

    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again at an aware `datetime`, or after a `Duration`.

    >>> RetryAt("5m").moment
    datetime.timedelta(seconds=300)
    """

    when: datetime | Duration

    def __post_init__(self) -> None:
        if isinstance(self.when, datetime) and self.when.tzinfo is None:
            raise DefinitionError(f"RetryAt({self.when!r}): give the datetime a time zone, as in datetime.now(UTC)")
        _ = self.moment

    @property
    def moment(self) -> datetime | timedelta:
        if isinstance(self.when, datetime):
            return self.when
        try:
            return parse(self.when)
        except ValueError as error:
            raise DefinitionError(f"RetryAt({self.when!r}): {error}") from error


@dataclass(frozen=True, slots=True)
class RetryWith:
    """Try again by another policy; not at all when its attempts are used up."""

    retry: Retry


Decision: TypeAlias = SkipRetrying | RetryAt | RetryWith


def due(delay: timedelta | None) -> datetime | None:
    """Return when an attempt that follows after *delay* would begin."""
    return None if delay is None else datetime.now(UTC) + delay
