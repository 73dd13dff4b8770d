"""`INHERIT`: what a run that is triggered inside another takes over from it."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final

from detent.sdk import scope

if TYPE_CHECKING:
    from detent.sdk.scope import RunScope


class Inherit(Enum):
    """The type of `INHERIT`."""

    INHERIT = "INHERIT"

    def __repr__(self) -> str:
        return self.value


INHERIT: Final = Inherit.INHERIT
"""As `metadata`, `tags`, `queue` or `concurrency_key` of a trigger inside a run: what the run itself was triggered with."""


def field_of_run(name: str) -> object:
    """Return what the present run has for the option *name*, None for nothing.

    Raises `OutsideRunError` when there is no run, `TypeError` for an option that no run hands down.
    """
    if name not in _FIELDS:
        raise TypeError(f"{name}=INHERIT: a run hands down {', '.join(sorted(_FIELDS))}; give a value")
    return _FIELDS[name](scope.require(f"{name}=INHERIT"))


_FIELDS: dict[str, Callable[[RunScope], object]] = {
    "concurrency_key": lambda run: run.context.run.concurrency_key,
    "metadata": lambda run: run.metadata,
    "queue": lambda run: run.context.queue.name,
    "tags": lambda run: run.context.run.tags,
}
