"""Durable operations of a run: their kinds, where in its code they come from, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from detent.protocol.fence import Holder


class OperationKind(StrEnum):
    TRIGGER = "trigger"
    CHILD = "child"
    BATCH = "batch"
    BATCH_WAIT = "batch_wait"
    TIME = "time"
    TOKEN = "token"
    """A wait for a token."""
    NEW_TOKEN = "new_token"
    STEP = "step"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """When an operation was asked for, counted in the answers that the run's code had been given: `answers` of them.

    `seen` are the operations of the last of these, in order; None says that they came in the order of recording. Entry by
    entry this tells the order of all answers, which a replay repeats.
    """

    answers: int = 0
    seen: tuple[str, ...] | None = None


BEFORE_ANY = Stamp()
"""Before the code had been given any answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The place in a run's code that a durable operation comes from.

    `operation` is its path in the attempt's journal. With `wait`, the run is told when what it asked for is done; with
    `suspends` it has nothing else to do meanwhile, and gives its slot back at once.
    """

    holder: Holder
    operation: str
    wait: bool = False
    suspends: bool = True
    stamp: Stamp = BEFORE_ANY
    version: str | None = None
    """What executes the run: children that it waits for prefer the same version, while a worker of it lives."""
