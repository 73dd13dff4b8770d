"""`Debounce`: many triggers in a short time become one run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, get_args

from detent import duration
from detent.duration import Duration

if TYPE_CHECKING:
    from detent.protocol.flow import Debouncing

LONGEST_KEY = 512
SHORTEST_DELAY = timedelta(seconds=1)

Mode = Literal["leading", "trailing"]


@dataclass(frozen=True, slots=True)
class Debounce:
    """Let a trigger join the run of its task and *key* that has not started yet, and put that off by *delay* from now.

    - `key`: 1 to 512 characters.
    - `delay`: a `Duration` of at least 1 s. Triggers only ever put the run off, never forward.
    - `mode`: `"leading"`, the default: the run keeps what the first trigger gave. `"trailing"`: the latest one replaces payload,
      metadata, tags, `max_attempts`, `max_duration` and `machine`, as far as it gives them.
    - `max_delay`: from the making of the run, beyond which it is not put off: a trigger that would makes a new run. Longer than
      `delay`; default: no bound.

    Example::

        await reindex.trigger(doc, debounce=Debounce(f"doc-{doc.id}", "5s", max_delay="1m"))

    Raises `ValueError` for a bad one.
    """

    key: str
    delay: Duration
    mode: Mode = "leading"
    max_delay: Duration | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not 0 < len(self.key) <= LONGEST_KEY:
            raise ValueError(f"Debounce: key={self.key!r} must be text of 1 to {LONGEST_KEY} characters")
        if self.mode not in get_args(Mode):
            raise ValueError(f'Debounce: mode={self.mode!r} must be "leading" or "trailing"')
        delay = _length("delay", self.delay)
        if delay < SHORTEST_DELAY:
            raise ValueError(f"Debounce: delay={self.delay!r} must be at least 1 s")
        if self.max_delay is not None and _length("max_delay", self.max_delay) <= delay:
            raise ValueError(f"Debounce: max_delay={self.max_delay!r} must be longer than delay={self.delay!r}")

    def to_debouncing(self) -> Debouncing:
        from detent.protocol.flow import DebounceMode, Debouncing

        return Debouncing(
            key=self.key,
            delay=duration.parse(self.delay),
            mode=DebounceMode(self.mode),
            max_delay=None if self.max_delay is None else duration.parse(self.max_delay),
        )


def _length(name: str, value: object) -> timedelta:
    if isinstance(value, datetime):
        raise ValueError(
            f"Debounce: {name}={value!r} must be a duration; a date is what the trigger's own delay= takes"
        )
    try:
        return duration.parse(value)  # type: ignore[arg-type]  # what is no duration is refused by it
    except ValueError as error:
        raise ValueError(f"Debounce: {name}: {error}") from error
