"""Fault points: one after each round trip of the engine, when the database has answered and nobody has seen the answer yet.

A point bears the name of its statement. `DETENT_FAULT=settle_runs:2:kill` has the process send itself SIGKILL the second time
it passes that point; `stop` is SIGSTOP, `cut` a connection that is lost, with the answer. `DETENT_FAULT=@FILE` has all processes
that inherit it share a file: the fault that stands in it befalls whoever passes its point first, takes the file away, and is
told of it once. That is how tests find out what a death at the worst moment does; elsewhere it is off.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from detent.errors import ConfigError

VARIABLE = "DETENT_FAULT"
FILE_MARK = "@"


class FaultKind(Enum):
    KILL = "kill"
    STOP = "stop"
    CUT = "cut"


class Faults(Protocol):
    """What is switched on."""

    def passed(self, point: str) -> FaultKind | None:
        """Say what is to happen at this point, now."""
        ...


@dataclass(slots=True)
class Fault:
    """What happens at a point the *count*-th time that it is passed."""

    point: str
    count: int
    kind: FaultKind

    def passed(self, point: str) -> FaultKind | None:
        if point != self.point:
            return None
        self.count -= 1
        return self.kind if self.count == 0 else None


class SharedFault:
    """The fault in a file, which befalls one of the processes that look at it."""

    def __init__(self, path: Path) -> None:
        self._path, self._text = path, ""
        self._fault: Fault | None = None

    def passed(self, point: str) -> FaultKind | None:
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return None
        if text != self._text:
            self._text, self._fault = text, parse(text)
        kind = None if self._fault is None else self._fault.passed(point)
        return kind if kind is not None and self._takes_it() else None

    def _takes_it(self) -> bool:
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True


def parse(text: str) -> Fault:
    """Return the fault that *text* names.

    >>> parse("settle_runs:2:kill")
    Fault(point='settle_runs', count=2, kind=<FaultKind.KILL: 'kill'>)
    """
    try:
        point, count, kind = text.strip().split(":")
        return Fault(point, int(count), FaultKind(kind))
    except ValueError:
        raise ConfigError(f"{VARIABLE}={text!r} is not of the form statement:2:kill (or :stop, :cut)") from None


def switched_on(value: str | None) -> Faults | None:
    """Return what the variable of the environment switches on."""
    if not value:
        return None
    return SharedFault(Path(value[1:])) if value.startswith(FILE_MARK) else parse(value)


def pass_point(faults: Faults, point: str) -> None:
    """Let happen what is to happen here. Raises `ConnectionResetError` for a connection that is cut."""
    kind = faults.passed(point)
    if kind is FaultKind.CUT:
        raise ConnectionResetError(f"cut after {point}, by {VARIABLE}")
    if kind is not None:
        os.kill(os.getpid(), signal.SIGKILL if kind is FaultKind.KILL else signal.SIGSTOP)


active = switched_on(os.environ.get(VARIABLE))
