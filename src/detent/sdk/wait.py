"""`wait`: durable pauses of a run. They survive a crash, a restart and a deploy, and hold no slot."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from detent import duration as durations
from detent.duration import Duration
from detent.sdk import scope as run_scope
from detent.sdk.blocking import blocking
from detent.sdk.options import aware
from detent.sdk.scope import RunScope

_UNITS = {
    "seconds": timedelta(seconds=1),
    "minutes": timedelta(minutes=1),
    "hours": timedelta(hours=1),
    "days": timedelta(days=1),
    "weeks": timedelta(weeks=1),
    "months": timedelta(days=30),
    "years": timedelta(days=365),
}


class Wait:
    """Pauses of the present run. Up to 5 s are slept in the process; longer ones suspend the run."""

    label = "wait"

    def __init__(self) -> None:
        self.sync = WaitSync(self)

    def for_(
        self,
        duration: Duration | None = None,
        /,
        *,
        seconds: float | None = None,
        minutes: float | None = None,
        hours: float | None = None,
        days: float | None = None,
        weeks: float | None = None,
        months: float | None = None,
        years: float | None = None,
    ) -> Coroutine[Any, Any, None]:
        """Pause the run: exactly one unit, or a `Duration`. A month is 30 days, a year 365; fractions are allowed.

        Example::

            await wait.for_(minutes=1.5)
            await wait.for_("1h30m")

        Raises `OutsideRunError` outside a run, `ValueError` for a negative time.
        """
        units = {
            "seconds": seconds, "minutes": minutes, "hours": hours, "days": days, "weeks": weeks, "months": months,
            "years": years,
        }  # fmt: skip
        given = {name: value for name, value in units.items() if value is not None}
        return run_scope.require("wait.for_").wait_until(_length(duration, given))

    def until(self, moment: datetime, /, *, raise_if_past: bool = False) -> Coroutine[Any, Any, None]:
        """Pause the run until an aware `datetime`. One that has passed ends at once, or raises with *raise_if_past*.

        Example::

            await wait.until(datetime(2030, 1, 1, tzinfo=UTC))

        Raises `OutsideRunError` outside a run, `ValueError` for a naive date.
        """
        present = run_scope.require("wait.until")
        aware("wait.until", moment)
        if raise_if_past:
            _refuse_past(moment, present)
        return present.wait_until(moment)


class WaitSync:
    """`wait` as blocking calls, for tasks written as plain `def`."""

    def __init__(self, wait: Wait) -> None:
        self.for_ = blocking(wait.for_)
        self.until = blocking(wait.until)


def _length(duration: Duration | None, given: dict[str, float]) -> timedelta:
    if duration is not None and not given:
        return durations.parse(duration)
    if duration is not None or len(given) != 1:
        asked = [*([] if duration is None else [repr(duration)]), *given]
        raise TypeError(
            f"wait.for_ takes a duration or exactly one of {', '.join(_UNITS)}; it was given {' and '.join(asked) or 'none'}"
        )
    ((unit, count),) = given.items()
    try:
        return durations.parse(durations.seconds(count) * _UNITS[unit].total_seconds())
    except ValueError as error:
        raise ValueError(f"wait.for_({unit}={count!r}): {error}") from error


def _refuse_past(moment: datetime, present: RunScope) -> None:
    # In a replay the date may have been ahead when the code first stood here.
    if not present.is_replaying and moment <= datetime.now(UTC):
        raise ValueError(f"wait.until({moment.isoformat()}): that is in the past")


wait = Wait()
