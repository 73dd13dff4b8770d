"""What the code of a run takes: CPU time where a process or a thread is its own, and the most memory where a process is."""

from __future__ import annotations

import resource
import sys
import threading
import time
from pathlib import Path

_STATUS = Path("/proc/self/status")
_PEAK = "VmHWM:"


class Meter:
    """Of one attempt, from its making. With `has_process` the process executes nothing else."""

    __slots__ = ("_began", "_has_process", "_thread")

    def __init__(self, *, has_process: bool) -> None:
        self._has_process = has_process
        self._began = _cpu_of_process() if has_process else 0.0
        self._thread = 0

    def enter_thread(self) -> None:
        """The calling thread is the run's from here on."""
        if not self._has_process:
            self._thread, self._began = threading.get_ident(), time.thread_time()

    @property
    def cpu_time(self) -> float | None:
        """Seconds of CPU; None on an event loop that many runs share, and in a thread that is not the run's."""
        if self._has_process:
            return _cpu_of_process() - self._began
        return time.thread_time() - self._began if self._thread == threading.get_ident() else None

    @property
    def peak_memory(self) -> int | None:
        """Bytes that the process had in memory at most; None where it is not the run's alone."""
        return _peak_memory() if self._has_process else None


def _cpu_of_process() -> float:
    """Seconds of this process, and of those that it started and waited for."""
    return sum(
        used.ru_utime + used.ru_stime for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _peak_memory() -> int:
    if sys.platform == "linux":
        # What getrusage tells begins with what the parent had when it started this process.
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(_PEAK))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
