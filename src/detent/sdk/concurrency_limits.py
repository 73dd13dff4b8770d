"""`concurrency_limits`: reading limits with what goes on under them, and changing them while workers run."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, Unpack, overload

from detent import duration
from detent.duration import Duration
from detent.sdk import concurrency, limits, options
from detent.sdk.blocking import blocking
from detent.sdk.concurrency import ConcurrencyLimit, RateLimit, check_bound, check_rate
from detent.sdk.limits import Limits
from detent.sdk.page import PageCall
from detent.sdk.target import HERE, Target
from detent.sdk.triggering import Triggerable

if TYPE_CHECKING:
    from detent.protocol.flow import Bound, KeyOverride, LimitChange, LimitRecord, LimitRef, OverrideKey, Rate

SHORTEST_KEY_TTL, LONGEST_KEY_TTL = timedelta(seconds=1), timedelta(days=30)

OneLimit: TypeAlias = "ConcurrencyLimit | Triggerable[Any] | str"
"""A limit as declared, by its name or its id (`climit_…`); a task stands for its inline limit, named `task/<id>`."""


class Bounds(TypedDict, total=False):
    """What `override` changes: only what is given; None takes a bound away.

    - `total`: of all runs that hold the limit.
    - `per_key`: of those of each `concurrency_key`.
    - `rate`: a `RateLimit`.
    """

    total: int | None
    per_key: int | None
    rate: RateLimit | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievedLimit:
    """A limit as it was when it was read. Of a `Bound`, `current` holds: `base` as declared, unless there is an `override`."""

    id: str
    """`climit_…`."""
    name: str
    """`task/<id>` for the inline limit of a task."""
    total: Bound
    per_key: Bound
    rate: RateLimit | None
    running: int
    """Runs that hold a slot."""
    queued: int
    """Runs that are ready to start."""
    paused: bool
    key_overrides: tuple[KeyOverride, ...]
    """What single concurrency keys are allowed instead of `per_key`, and until when."""


def _of_record(record: LimitRecord) -> RetrievedLimit:
    return RetrievedLimit(
        id=record.id,
        name=record.name,
        total=record.total,
        per_key=record.per_key,
        rate=None if record.rate is None else RateLimit.of_rate(record.rate),
        running=record.running,
        queued=record.queued,
        paused=record.paused_at is not None,
        key_overrides=record.key_overrides,
    )


class ConcurrencyLimits:
    """The limits that workers have registered: named ones, and the inline ones of tasks.

    Every method takes a `ConcurrencyLimit`, a name, an id, or a task for its inline limit. Each raises `TypeError` or
    `ValueError` for what names none, `NotFoundError` for a limit that is not there, and `ApiConnectionError` when the database is
    out of reach.
    """

    label = "concurrency_limits"

    def __init__(self, target: Target = HERE) -> None:
        self._limits = Limits(target, "limit", _of_record)
        self.sync = ConcurrencyLimitsSync(self)

    def list(self, *, page: int = 1, per_page: int = 25) -> PageCall[RetrievedLimit]:
        """Return limits by name: a page of at most *per_page* (1 to 100), or with `async for` that and all that follow.

        Example::

            async for limit in concurrency_limits.list():
                print(limit.name, limit.running, limit.total.current)
        """
        limits.check_page(page, per_page)
        return PageCall(self._limits.page(page, per_page), "concurrency_limits.list")

    def retrieve(self, limit: OneLimit) -> Coroutine[Any, Any, RetrievedLimit]:
        """Return a limit as it stands.

        Example::

            print((await concurrency_limits.retrieve("openai")).running)
        """
        return self._limits.retrieve(self._ref(limit))

    @overload
    def override(
        self, limit: OneLimit, *, concurrency_key: str | float, per_key: int, ttl: Duration = ...
    ) -> Coroutine[Any, Any, RetrievedLimit]: ...
    @overload
    def override(self, limit: OneLimit, **bounds: Unpack[Bounds]) -> Coroutine[Any, Any, RetrievedLimit]: ...
    def override(self, limit: object, **given: object) -> Coroutine[Any, Any, RetrievedLimit]:
        """Put other bounds in the place of the declared ones until they are reset, also over deploys: only what is given.

        Example::

            await concurrency_limits.override("openai", total=50)
            await concurrency_limits.override("openai", concurrency_key=user_id, per_key=3, ttl="1d")

        With *concurrency_key* it is `per_key` of that key alone, for *ttl*: 1 s to 30 days, by default 7 days. 0 blocks the key.
        A limit without `per_key` is refused (`ApiError`). Runs that execute beyond the new bounds go on. Raises `TypeError` when
        there is nothing to change, `ValueError` for a bad bound.
        """
        return self._limits.change(_change(self._ref(limit), given))

    def reset(
        self, limit: OneLimit, *, concurrency_key: str | float | None = None
    ) -> Coroutine[Any, Any, RetrievedLimit]:
        """Go back to what was declared, or with *concurrency_key* to what holds for every other key.

        Overrides of single keys stay when the limit is reset. Raises an `ApiError` when nothing is overridden.
        """
        key = None if concurrency_key is None else options.to_key("concurrency_key", concurrency_key)
        return self._limits.reset(self._ref(limit), concurrency_key=key)

    def pause(self, limit: OneLimit) -> Coroutine[Any, Any, RetrievedLimit]:
        """Start no run any more that holds the limit. Those that execute go on, triggers are accepted, a `ttl` goes on."""
        return self._limits.pause(self._ref(limit))

    def resume(self, limit: OneLimit) -> Coroutine[Any, Any, RetrievedLimit]:
        """Undo a pause."""
        return self._limits.resume(self._ref(limit))

    def _ref(self, limit: object) -> LimitRef:
        from detent.protocol.flow import INLINE_PREFIX

        if isinstance(limit, Triggerable):
            return self._limits.ref(f"{INLINE_PREFIX}{limit.id}")
        is_inline = isinstance(limit, str) and limit.startswith(INLINE_PREFIX)
        return self._limits.ref(str(limit) if is_inline else concurrency.name_of(limit))


class ConcurrencyLimitsSync:
    """`concurrency_limits` as blocking calls."""

    def __init__(self, limits: ConcurrencyLimits) -> None:
        self._limits = limits
        self.list = blocking(limits.list)
        self.retrieve = blocking(limits.retrieve)
        self.reset = blocking(limits.reset)
        self.pause = blocking(limits.pause)
        self.resume = blocking(limits.resume)

    # A twin derived from an overloaded method would lose its overloads.

    @overload
    def override(
        self, limit: OneLimit, *, concurrency_key: str | float, per_key: int, ttl: Duration = ...
    ) -> RetrievedLimit: ...
    @overload
    def override(self, limit: OneLimit, **bounds: Unpack[Bounds]) -> RetrievedLimit: ...
    def override(self, limit: Any, **given: Any) -> RetrievedLimit:
        """`concurrency_limits.override` as a blocking call."""
        return blocking(self._limits.override)(limit, **given)


def _change(ref: LimitRef, given: dict[str, object]) -> LimitChange:
    from detent.protocol.flow import Override

    if "concurrency_key" in given:
        return _override_key(ref, **given)
    if not given or not given.keys() <= Bounds.__annotations__.keys():
        names = ", ".join(given) or "nothing"
        raise TypeError(
            f"override() takes total=, per_key= and rate=, or concurrency_key=, per_key= and ttl=; it was given {names}"
        )
    bounds = {name: _READERS[name](name, value) for name, value in given.items()}
    return Override(ref=ref, **bounds)  # type: ignore[arg-type]  # each was made for its field


def _override_key(ref: LimitRef, *, concurrency_key: object, **given: object) -> OverrideKey:
    from detent.protocol.flow import OverrideKey

    if not {"per_key"} <= given.keys() <= {"per_key", "ttl"}:
        raise TypeError(
            "override() of one concurrency_key takes per_key=, and ttl= if it likes; change total= and rate= without a key"
        )
    bound = check_bound("per_key", given["per_key"])
    if bound is None:
        raise ValueError("per_key=None: a key's own bound is a number; reset(..., concurrency_key=...) takes it away")
    key = options.to_key("concurrency_key", concurrency_key)
    if "ttl" not in given:
        return OverrideKey(ref=ref, concurrency_key=key, per_key=bound)
    return OverrideKey(ref=ref, concurrency_key=key, per_key=bound, ttl=_ttl(given["ttl"]))


def _ttl(value: object) -> timedelta:
    ttl = duration.parse(value)  # type: ignore[arg-type]  # what is no duration is refused by it
    if not SHORTEST_KEY_TTL <= ttl <= LONGEST_KEY_TTL:
        raise ValueError(f"ttl={value!r} must be 1 s to 30 days")
    return ttl


def _rate(name: str, value: object) -> Rate | None:
    rate = check_rate(name, value)
    return None if rate is None else rate.to_rate()


_READERS = {"total": check_bound, "per_key": check_bound, "rate": _rate}

concurrency_limits = ConcurrencyLimits()
