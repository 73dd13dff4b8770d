"""How a task wants its runs executed."""

from __future__ import annotations

from enum import StrEnum


class Isolation(StrEnum):
    """Where a run executes: what a lease asks room for."""

    ASYNC = "async"
    THREAD = "thread"
    PROCESS = "process"


class OnLost(StrEnum):
    """What becomes of a run whose code had begun when its worker was lost."""

    RESTART = "restart"
    FAIL = "fail"
    """At most once: it ends CRASHED and is not tried again. Where nobody can tell whether it had begun, it counts as begun."""
