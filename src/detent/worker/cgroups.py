"""Groups of processes that the kernel holds to an amount of memory and CPU: cgroup v2, which is a tree of folders.

A folder gives limits to the folders in it only while no process is in the folder itself. So a worker with a folder to itself
moves into one below it, and runs get others beside that.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import psutil

from detent.protocol.machines import Machine

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
_CONTROLLERS = {"cpu", "memory"}
_PREFIX = "detent-"
_WORKER = f"{_PREFIX}worker"
_PERIOD = 100_000
"""Microseconds in which a group may use its part of CPU."""

Remove = Callable[[Path], None]


class Group:
    """The processes of one run."""

    def __init__(self, folder: Path, remove: Remove = os.rmdir) -> None:
        self.folder, self._remove = folder, remove

    def hold(self, pid: int, machine: Machine) -> None:
        """Bound what a process and those that it starts may take, together. Raises `OSError`."""
        self._write("memory.max", str(machine.memory))
        with contextlib.suppress(FileNotFoundError):  # a kernel that does not count what is swapped
            self._write("memory.swap.max", "0")
        self._write("cpu.max", f"{max(1000, round(machine.cpu * _PERIOD))} {_PERIOD}")
        self._write("cgroup.procs", str(pid))

    @property
    def has_killed(self) -> bool:
        """Whether a process of it was killed because there was no memory left."""
        try:
            events = (self.folder / "memory.events").read_text()
        except OSError:
            return False
        return any(name == "oom_kill" and count != "0" for name, _, count in map(_parts, events.splitlines()))

    def remove(self) -> None:
        """Remove the group; one in which a process still lives stays, for the next worker to sweep."""
        with contextlib.suppress(OSError):
            self._remove(self.folder)

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)


class Cgroups:
    """The folder in which this worker makes its groups."""

    def __init__(self, folder: Path, remove: Remove = os.rmdir) -> None:
        self.folder, self._remove = folder, remove

    def make(self, name: str) -> Group:
        """Make a group that bounds nothing yet. Raises `OSError`."""
        group = Group(self.folder / f"{_PREFIX}{name}", self._remove)
        group.folder.mkdir()
        return group

    def sweep(self) -> None:
        """Remove what workers have left that died: groups without processes."""
        for folder in self.folder.glob(f"{_PREFIX}*"):
            if folder.name != _WORKER:
                Group(folder, self._remove).remove()


def find(root: Path = ROOT, own: Path = OWN, remove: Remove = os.rmdir) -> Cgroups | None:
    """Return where this process may make groups, None where it may not: no cgroup v2, no right, or others share its folder."""
    folder = _folder_of(root, own)
    try:
        if folder is None or not set((folder / "cgroup.controllers").read_text().split()) >= _CONTROLLERS:
            return None
        _delegate(folder)
        found = Cgroups(folder, remove)
        found.sweep()
        found.make("trial").remove()
    except OSError:
        return None
    return found


def _folder_of(root: Path, own: Path) -> Path | None:
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    return None if path is None else root / path.lstrip("/")


def _delegate(folder: Path) -> None:
    """Have the folders in this one bounded. Raises `OSError` where that cannot be."""
    control = folder / "cgroup.subtree_control"
    if set(control.read_text().split()) >= _CONTROLLERS:
        return
    pids = {int(pid) for pid in (folder / "cgroup.procs").read_text().split()}
    if not pids <= _family():
        raise PermissionError(f"{folder} holds processes that are not this worker's")
    below = folder / _WORKER
    below.mkdir(exist_ok=True)
    for pid in pids:
        (below / "cgroup.procs").write_text(str(pid))
    control.write_text(" ".join(f"+{name}" for name in sorted(_CONTROLLERS)))


def _family() -> set[int]:
    present = psutil.Process()
    return {present.pid, *(child.pid for child in present.children(recursive=True))}


def _parts(line: str) -> tuple[str, str, str]:
    return line.partition(" ")
