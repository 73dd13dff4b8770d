"""`concurrency_limit`, `Concurrency` and `RateLimit`: how many runs execute at once, and how many start in a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, TypeAlias

from detent import duration
from detent.duration import Duration
from detent.errors import DefinitionError
from detent.sdk import source
from detent.sdk.declarations import declarations

if TYPE_CHECKING:
    from detent.protocol.flow import LimitDeclaration, Rate

LARGEST_BOUND = 2_147_483_647
MOST_NAMED = 2
"""Named limits that a run may hold."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,122}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """How many runs of a task execute at once: `@task(concurrency=Concurrency(per_key=1, total=10))`.

    - `total`: of all its runs, with or without a key. 0 starts none. Default: no bound.
    - `per_key`: of those of each `concurrency_key`; runs without a key share one pool. Default: no bound.

    Raises `DefinitionError` for a bound that is no whole number of 0 or more, and when neither is given.
    """

    total: int | None = None
    per_key: int | None = None

    def __post_init__(self) -> None:
        if self.total is None and self.per_key is None:
            raise DefinitionError("Concurrency() bounds nothing; give it total=, per_key=, or both")
        for name, bound in (("total", self.total), ("per_key", self.per_key)):
            try:
                check_bound(name, bound)
            except ValueError as error:
                raise DefinitionError(f"Concurrency: {error}") from error


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` runs start in any window of `period`, over all workers: `RateLimit(100, "1m")`.

    - `limit`: a whole number of 1 or more.
    - `period`: a `Duration` longer than 0.
    - `per_key`: counts the runs of each `concurrency_key` by themselves. Default: all together.

    Raises `DefinitionError` for bad ones.
    """

    limit: int
    period: Duration
    _: KW_ONLY
    per_key: bool = False

    def __post_init__(self) -> None:
        try:
            if check_bound("limit", self.limit) in (None, 0):
                raise ValueError(f"limit={self.limit!r} must be 1 or more; pause what must start nothing")
            if not duration.parse(self.period):
                raise ValueError("period must be longer than 0 s")
        except ValueError as error:
            raise DefinitionError(f"RateLimit: {error}") from error

    def to_rate(self) -> Rate:
        from detent.protocol.flow import Rate

        return Rate(starts=self.limit, period=duration.seconds(self.period), per_key=self.per_key)

    @classmethod
    def of_rate(cls, rate: Rate) -> RateLimit:
        return cls(rate.starts, rate.period, per_key=rate.per_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyLimit:
    """A limit that several tasks hold, as `concurrency_limit` returns it. Code names it by this, or by its `name`."""

    name: str
    total: int | None = None
    per_key: int | None = None
    rate: RateLimit | None = None


TaskLimit: TypeAlias = Concurrency | RateLimit | ConcurrencyLimit | str | int
"""One item of a task's `concurrency`; a number is short for `Concurrency(total=...)`."""
NamedLimit: TypeAlias = ConcurrencyLimit | str


def concurrency_limit(
    name: str, *, total: int | None = None, per_key: int | None = None, rate: RateLimit | None = None
) -> ConcurrencyLimit:
    """Declare a limit that tasks share: what all of them together may do.

    Example::

        openai = concurrency_limit("openai", total=25, rate=RateLimit(500, "1m"))

        @task(concurrency=[Concurrency(total=5), openai])
        async def summarize(text: str) -> str: ...

    *total*, *per_key* and *rate* are as of `Concurrency` and `RateLimit`. A name has 1 to 122 letters, digits, `_` and `-`.
    Raises `DefinitionError` for a bad one, and `DuplicateLimitError` when it is declared elsewhere with other bounds.
    """
    origin = source.of_caller()
    try:
        limit = ConcurrencyLimit(
            name=_check_name(name),
            total=check_bound("total", total),
            per_key=check_bound("per_key", per_key),
            rate=check_rate("rate", rate),
        )
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"concurrency_limit({name!r}) in {origin.place}: {error}") from error
    declarations.add(_declaration(name, total, per_key, rate), origin)
    return limit


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimits:
    """What the runs of a task hold: its inline limit, and the named ones."""

    inline: LimitDeclaration | None = None
    named: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return self.named if self.inline is None else (self.inline.name, *self.named)


def of_task(task_id: str, option: object) -> TaskLimits:
    """Return what a task's `concurrency` says. Raises `TypeError` and `ValueError`."""
    bounds: list[Concurrency] = []
    rates: list[RateLimit] = []
    named: list[object] = []
    for item in _listed(option):
        match item:
            case Concurrency():
                bounds.append(item)
            case RateLimit():
                rates.append(item)
            case int() if not isinstance(item, bool):
                bounds.append(Concurrency(total=item))
            case _:
                named.append(item)
    return TaskLimits(inline=_inline(task_id, bounds, rates), named=to_names(named))


def to_names(option: object) -> tuple[str, ...]:
    """Return the names of limits, which are given by name or as declared. Raises `TypeError` and `ValueError`."""
    names = tuple(name_of(item) for item in _listed(option))
    if len(names) > MOST_NAMED:
        raise ValueError(f"{', '.join(names)} are {len(names)} named limits, and a run holds at most {MOST_NAMED}")
    if len(set(names)) < len(names):
        raise ValueError(f'the limit "{names[0]}" is there twice')
    return names


def name_of(limit: object) -> str:
    """Return the name of a limit that is given by name or as declared. Raises `TypeError` and `ValueError`."""
    if isinstance(limit, ConcurrencyLimit):
        return limit.name
    if isinstance(limit, (Concurrency, RateLimit, int)) and not isinstance(limit, bool):
        raise TypeError(f"{limit!r} has no name: bounds are declared with the task; here limits are named")
    return _check_name(limit)


def check_bound(name: str, bound: object) -> int | None:
    """Return *bound* if it is a number of runs, or None; raises `ValueError`."""
    if bound is None:
        return None
    if isinstance(bound, bool) or not isinstance(bound, int) or not 0 <= bound <= LARGEST_BOUND:
        raise ValueError(f"{name}={bound!r} must be a whole number of 0 to {LARGEST_BOUND:,}, or None for no bound")
    return bound


def check_rate(name: str, rate: object) -> RateLimit | None:
    """Return *rate* if it is a `RateLimit`, or None; raises `TypeError`."""
    if rate is not None and not isinstance(rate, RateLimit):
        raise TypeError(f'{name}={rate!r} must be a RateLimit, such as RateLimit(100, "1m")')
    return rate


def _inline(task_id: str, bounds: Sequence[Concurrency], rates: Sequence[RateLimit]) -> LimitDeclaration | None:
    from detent.protocol.flow import INLINE_PREFIX

    if len(bounds) > 1:
        raise ValueError(
            f"{len(bounds)} inline bounds: a task has one, with total= and per_key=; name a further one with concurrency_limit()"
        )
    if len(rates) > 1:
        raise ValueError(
            f"{len(rates)} inline rate limits: a task has one; name a further one with concurrency_limit()"
        )
    if not bounds and not rates:
        return None
    total, per_key = (bounds[0].total, bounds[0].per_key) if bounds else (None, None)
    return _declaration(f"{INLINE_PREFIX}{task_id}", total, per_key, rates[0] if rates else None)


def _declaration(name: str, total: int | None, per_key: int | None, rate: RateLimit | None) -> LimitDeclaration:
    from detent.protocol.flow import LimitDeclaration, LimitKind

    return LimitDeclaration(
        kind=LimitKind.LIMIT, name=name, total=total, per_key=per_key, rate=None if rate is None else rate.to_rate()
    )


def _listed(option: object) -> list[object]:
    if isinstance(option, Iterable) and not isinstance(option, (str, bytes, Mapping)):
        return list(option)
    return [option]


def _check_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is no limit: give a concurrency_limit() or its name")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a limit: 1 to 122 letters, digits, _ and - make one")
    return name
