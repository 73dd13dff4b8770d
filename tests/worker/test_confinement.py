"""A process is held to the memory of its machine, and has it again to tell what came of the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from detent.protocol.machines import Machine
from detent.worker.cgroups import Group
from detent.worker.confinement import ByCgroup, confinement_in

HELD = """
from detent.protocol.machines import Machine
from detent.worker.confinement import ByRlimit
import mmap
def outcome(allocate):
    try:
        allocate()
    except (MemoryError, OSError) as error:
        return type(error).__name__
    return "well"
limit = ByRlimit()
limit.begin(Machine(cpu=1, memory_gb=0.25))
tries = [lambda: bytearray(64 << 20), lambda: bytearray(512 << 20), lambda: mmap.mmap(-1, 512 << 20, flags=mmap.MAP_PRIVATE)]
print(*map(outcome, tries))
limit.end()
print(*map(outcome, tries))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds what a process allocates")
def test_an_rlimit_bounds_the_heap_and_anonymous_memory_until_it_is_lifted() -> None:
    told = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["well MemoryError OSError", "well well well"]


def test_a_cgroup_goes_before_an_rlimit(tmp_path: Path) -> None:
    assert isinstance(confinement_in(str(tmp_path)), ByCgroup)
    assert not isinstance(confinement_in(""), ByCgroup)


def test_a_cgroup_that_cannot_be_set_is_told_and_does_not_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = ByCgroup(Group(tmp_path / "gone"))
    held.begin(Machine(cpu=1, memory_gb=1))
    held.end()
    assert not held.has_killed
    assert "this run is not held to its machine: its cgroup" in caplog.text
