"""The retry policy of a task and its arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from detent.duration import Duration, parse
from detent.errors import DefinitionError

ATTEMPTS_CEILING = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and how soon a failed attempt is tried again.

    `max_attempts` counts the first try (1 to 250). The delay after attempt *a* is
    `min(max_timeout, min_timeout * factor ** (a - 1) * jitter)`, where jitter is uniform in [1, 2) if `randomize`, else 1:
    the reference's formula, in which jitter only lengthens and the cap comes last. `oom_machine` names the machine on
    which a run in a process of its own that ran out of memory is tried once more, as long as attempts are left; without it
    such a run has crashed.

    >>> Retry(randomize=False).delay_after(3)
    datetime.timedelta(seconds=4)
    """

    max_attempts: int = 3
    factor: float = 2
    min_timeout: Duration = "1s"
    max_timeout: Duration = "10s"
    randomize: bool = True
    oom_machine: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.max_attempts, bool) or not isinstance(self.max_attempts, int):
            raise DefinitionError(f"Retry(max_attempts={self.max_attempts!r}): it must be a whole number")
        if not 1 <= self.max_attempts <= ATTEMPTS_CEILING:
            raise DefinitionError(f"Retry(max_attempts={self.max_attempts!r}): it must be 1 to {ATTEMPTS_CEILING}")
        if self.oom_machine is not None:
            self._check_oom_machine(self.oom_machine)
        if not self.factor > 0:
            raise DefinitionError(f"Retry(factor={self.factor!r}): it must be over 0")
        for name, value in (("min_timeout", self.min_timeout), ("max_timeout", self.max_timeout)):
            try:
                parse(value)
            except ValueError as error:
                raise DefinitionError(f"Retry({name}={value!r}): {error}") from error

    def _check_oom_machine(self, name: object) -> None:
        if not isinstance(name, str) or not name.strip():
            raise DefinitionError(f'Retry(oom_machine={name!r}): it must be the name of a machine, such as "large-1x"')
        if self.max_attempts == 1:
            raise DefinitionError(
                f"Retry(max_attempts=1, oom_machine={name!r}): no attempt is left for that machine; allow at least 2"
            )

    def delay_after(self, attempt: int) -> timedelta:
        """Return the delay after attempt number *attempt* has failed, whether or not another is allowed."""
        from random import random

        jitter = 1 + random() if self.randomize else 1.0
        longest = parse(self.max_timeout).total_seconds()
        try:
            wanted = jitter * parse(self.min_timeout).total_seconds() * self.factor ** (attempt - 1)
        except OverflowError:
            wanted = longest
        return timedelta(milliseconds=round(min(longest, wanted) * 1000))
