"""Flow control as callers and workers speak of it: queues, limits, what they allow, and how that is changed.

A *limit* bounds how many runs hold a slot at the same time: all of them (`total`), or those of each concurrency key
(`per_key`; runs without a key share one pool). A queue's `concurrency_limit` is its `per_key`, and the environment's limit its
`total`: the same thing under three kinds. A limit may also bound how many runs start in any window of time (`rate`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, TypeAlias

INLINE_PREFIX = "task/"
"""Before a task's id: the name of its own queue, and of the limit that it declares inline."""


class LimitKind(StrEnum):
    ENVIRONMENT = "environment"
    """One for each environment, named `""`."""
    QUEUE = "queue"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """At most `starts` runs start in any window of `period` seconds: of all, or of each concurrency key."""

    starts: int
    period: float
    per_key: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitDeclaration:
    """A queue or a limit as code declares it; None is no bound. Inline limits are named `task/<id>`."""

    kind: LimitKind
    name: str
    total: int | None = None
    per_key: int | None = None
    rate: Rate | None = None
    most_queued: int | None = None
    """Of a queue: triggers beyond so many ready runs are refused; about, for producers do not wait for each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a limit allows: `base` as declared, unless there is an `override`. None is no bound."""

    base: int | None = None
    override: int | None = None
    overridden_at: datetime | None = None

    @property
    def current(self) -> int | None:
        return self.base if self.overridden_at is None else self.override


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOverride:
    """What one concurrency key is allowed until `expires_at`."""

    concurrency_key: str
    per_key: int
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRecord:
    """A queue, a limit or an environment as it is read, with live counts. `id` is `queue_…`, `climit_…` or `env_…`."""

    id: str
    kind: LimitKind
    name: str
    total: Bound
    per_key: Bound
    rate: Rate | None
    most_queued: int | None
    paused_at: datetime | None
    running: int
    """Runs that hold a slot."""
    queued: int
    """Runs that are ready to start."""
    key_overrides: tuple[KeyOverride, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRef:
    """Names a queue or a limit, by its name or its id."""

    kind: LimitKind
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """Replace bounds until they are reset; `"kept"` leaves one as it is, None takes it away. Survives deploys."""

    ref: LimitRef
    total: int | Literal["kept"] | None = "kept"
    per_key: int | Literal["kept"] | None = "kept"
    rate: Rate | Literal["kept"] | None = "kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideKey:
    """Give one concurrency key another bound than `per_key`, for a time. Refused where `per_key` is not bounded."""

    ref: LimitRef
    concurrency_key: str
    per_key: int
    ttl: timedelta = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """Go back to what was declared; with a key, for that key alone. Refused when nothing is overridden."""

    ref: LimitRef
    concurrency_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Start nothing that holds this; what runs goes on. Triggers are accepted, a ttl goes on."""

    ref: LimitRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    ref: LimitRef


LimitChange: TypeAlias = Override | OverrideKey | Reset | Pause | Resume


class DebounceMode(StrEnum):
    LEADING = "leading"
    """The run keeps what the first trigger gave."""
    TRAILING = "trailing"
    """The latest trigger replaces payload, metadata, tags, max_attempts, max_duration and machine, as far as it gives them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Debouncing:
    """A trigger that joins a run of the same task and key that is still delayed, and puts that off.

    `max_delay`, from the making of that run: beyond it the run keeps its date and a new one is made.
    """

    key: str
    delay: timedelta
    mode: DebounceMode = DebounceMode.LEADING
    max_delay: timedelta | None = None
