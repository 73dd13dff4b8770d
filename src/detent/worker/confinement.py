"""Holding the process of a run to its machine: by a cgroup where the worker may make one, else by an rlimit on its memory.

The rlimit is that on data (`RLIMIT_DATA`). It counts what Python allocates, whether from the heap or by anonymous mappings, and
nothing that is only mapped from files; one on the address space would count code and what threads merely reserve. It holds for
each process by itself: what a run's subprocesses take is not added up.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
from pathlib import Path
from typing import Protocol

from detent.protocol.machines import Machine
from detent.worker.cgroups import Group

log = logging.getLogger("detent.worker")


class Confinement(Protocol):
    """What holds this process to a machine."""

    def begin(self, machine: Machine) -> None:
        """Bound what this process may take from here on."""
        ...

    def end(self) -> None:
        """Leave the memory to tell what came of the run, whatever that has taken."""
        ...

    @property
    def has_killed(self) -> bool:
        """Whether a process that the run had started was killed because there was no memory left."""
        ...


class ByCgroup:
    """Memory and CPU, of the process and of all that it starts, together."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def begin(self, machine: Machine) -> None:
        try:
            self._group.hold(os.getpid(), machine)
        except OSError as error:
            log.warning("this run is not held to its machine: its cgroup %s cannot be set (%s)", self._group.folder, error)

    def end(self) -> None:
        return

    @property
    def has_killed(self) -> bool:
        return self._group.has_killed


class ByRlimit:
    """Memory alone, of each process by itself. Python then raises `MemoryError`."""

    has_killed = False

    def __init__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_DATA)

    def begin(self, machine: Machine) -> None:
        # The soft limit alone: the hard one could not be raised again.
        _, hard = self._before
        most = machine.memory if hard == resource.RLIM_INFINITY else min(machine.memory, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))

    def end(self) -> None:
        resource.setrlimit(resource.RLIMIT_DATA, self._before)


def confinement_in(cgroup: str) -> Confinement | None:
    """Return what can hold this process: a cgroup that was made for it, or else its rlimit; None where neither holds."""
    if cgroup:
        return ByCgroup(Group(Path(cgroup)))
    return ByRlimit() if sys.platform == "linux" else None
