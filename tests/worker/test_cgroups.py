"""Cgroups: found where this worker may make them, with the limits of a machine in them, and removed when they are done with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from detent.protocol.machines import Machine
from detent.worker import cgroups
from detent.worker.cgroups import Cgroups, Group

SMALL = Machine(cpu=0.5, memory_gb=0.25)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """What tells a process where it is in the tree: in `system.slice/detent.service`."""
    file = tmp_path / "cgroup"
    file.write_text("0::/system.slice/detent.service\n")
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That part of a tree of cgroups, with this process in it, as the kernel shows it."""
    folder = tmp_path / "tree" / "system.slice" / "detent.service"
    folder.mkdir(parents=True)
    (folder / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (folder / "cgroup.subtree_control").write_text("\n")
    (folder / "cgroup.procs").write_text(f"{os.getpid()}\n")
    return folder


def find(tmp_path: Path, own: Path) -> Cgroups | None:
    return cgroups.find(tmp_path / "tree", own, shutil.rmtree)


# ---- where they may be made ----


def test_a_worker_with_a_folder_to_itself_moves_down_and_hands_the_controllers_on(
    tmp_path: Path, own: Path, folder: Path
) -> None:
    found = find(tmp_path, own)
    assert found is not None
    assert found.folder == folder
    assert (folder / "detent-worker" / "cgroup.procs").read_text() == str(os.getpid())
    assert (folder / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert not (folder / "detent-trial").exists()


def test_a_folder_that_hands_them_on_already_is_used_as_it_is(tmp_path: Path, own: Path, folder: Path) -> None:
    (folder / "cgroup.subtree_control").write_text("cpu memory\n")
    assert find(tmp_path, own) is not None
    assert not (folder / "detent-worker").exists()


def test_a_folder_that_others_are_in_is_left_alone(tmp_path: Path, own: Path, folder: Path) -> None:
    (folder / "cgroup.procs").write_text(f"{os.getpid()}\n1\n")
    assert find(tmp_path, own) is None
    assert (folder / "cgroup.subtree_control").read_text() == "\n"


@pytest.mark.parametrize("controllers", ["", "cpu io", "memory"])
def test_a_folder_without_both_controllers_is_of_no_use(tmp_path: Path, own: Path, folder: Path, controllers: str) -> None:
    (folder / "cgroup.controllers").write_text(controllers)
    assert find(tmp_path, own) is None


@pytest.mark.parametrize("lines", ["4:memory:/user\n1:cpu:/user\n", "", None])
def test_a_system_without_the_second_version_has_none(tmp_path: Path, own: Path, folder: Path, lines: str | None) -> None:
    own.unlink()
    if lines is not None:
        own.write_text(lines)
    assert find(tmp_path, own) is None


def test_what_dead_workers_have_left_is_swept(tmp_path: Path, own: Path, folder: Path) -> None:
    (folder / "detent-session_1").mkdir()
    assert find(tmp_path, own) is not None
    assert [entry.name for entry in folder.iterdir() if entry.is_dir()] == ["detent-worker"]


# ---- what they hold ----


def test_a_group_has_the_limits_of_its_machine_and_the_process(folder: Path) -> None:
    group = Cgroups(folder, shutil.rmtree).make("session_1")
    group.hold(4711, SMALL)
    written = {file.name: file.read_text() for file in (folder / "detent-session_1").iterdir()}
    assert written == {
        "memory.max": str(256 * 1024**2), "memory.swap.max": "0", "cpu.max": "50000 100000", "cgroup.procs": "4711",
    }  # fmt: skip
    group.remove()
    assert not group.folder.exists()


@pytest.mark.parametrize(
    ("events", "has_killed"),
    [("low 0\nmax 7\noom 1\noom_kill 0\n", False), ("oom 1\noom_kill 2\noom_group_kill 0\n", True), (None, False)],
)
def test_its_events_tell_whether_it_was_out_of_memory(folder: Path, events: str | None, has_killed: bool) -> None:
    if events is not None:
        (folder / "memory.events").write_text(events)
    assert Group(folder).has_killed is has_killed


def test_a_group_in_which_something_lives_stays(folder: Path) -> None:
    Group(folder).remove()
    assert folder.exists()


HUNGRY = """
import sys
from pathlib import Path
from detent.worker.cgroups import find
from detent.protocol.machines import Machine
found = find()
if found is None:
    sys.exit("no")
group = found.make("test")
try:
    import subprocess
    eater = subprocess.Popen([sys.executable, "-c", "input(); b'x' * (512 << 20)"], stdin=subprocess.PIPE)
    group.hold(eater.pid, Machine(cpu=1, memory_gb=0.1))
    eater.communicate(b"go")
    print(eater.returncode, group.has_killed)
finally:
    group.remove()
"""


def test_the_kernel_kills_what_takes_more_and_says_so() -> None:
    """Where this machine lets a process make groups: with cgroup v2, and with rights."""
    ended = subprocess.run([sys.executable, "-c", HUNGRY], capture_output=True, text=True, check=False)
    if ended.stderr.strip() == "no":
        pytest.skip("no cgroup v2 in which this process may make groups")
    assert ended.stdout.split() == ["-9", "True"]
