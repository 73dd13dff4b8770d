"""Processes that are forked are as those that are started."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest

from tests.nursery import Ended, Nursery

PROGRAM = """
import os, signal, sys
print("said", *sys.argv[1:], os.environ.get("WORD"), os.getcwd(), os.getpid() == os.getsid(0))
print("complained", file=sys.stderr)
{end}
"""
PATIENCE = 20.0


def run(nursery: Nursery, folder: Path, end: str, **variables: str) -> Ended:
    (folder / "program.py").write_text(PROGRAM.format(end=end))
    return nursery.run("program", ["a", "b"], folder=folder, environment=variables, timeout=PATIENCE)


def test_it_has_the_arguments_environment_and_folder_that_it_was_given(nursery: Nursery, tmp_path: Path) -> None:
    done = run(nursery, tmp_path, "", WORD="word")
    assert done == Ended(returncode=0, stdout=f"said a b word {tmp_path} True\n", stderr="complained\n")


@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(3)", 3), ("raise ValueError", 1), ("os.kill(0, signal.SIGKILL)", -signal.SIGKILL)]
)
def test_its_end_is_told(nursery: Nursery, tmp_path: Path, end: str, code: int) -> None:
    assert run(nursery, tmp_path, end).returncode == code


def test_one_does_not_see_what_another_has_loaded_or_set(nursery: Nursery, tmp_path: Path) -> None:
    run(nursery, tmp_path, "os.environ['WORD'] = 'set'; sys.modules['tests.of_another'] = sys")
    done = run(nursery, tmp_path, "sys.exit('tests.of_another' in sys.modules)")
    assert (done.returncode, done.stdout.split()[3]) == (0, "None")


def test_it_is_gone_when_its_block_is_left(nursery: Nursery, tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text("import signal\nwhile True: signal.pause()\n")
    with tempfile.TemporaryFile() as output:
        with nursery.spawn("endless", [], folder=tmp_path, environment={}, output=output) as child:
            assert child.poll() is None
            os.kill(child.pid, 0)
            with pytest.raises(TimeoutError):
                child.wait(0)
        assert child.returncode == -signal.SIGKILL
        with pytest.raises(ProcessLookupError):
            os.kill(child.pid, 0)


def test_loading_detent_is_done(nursery: Nursery, tmp_path: Path) -> None:
    assert run(nursery, tmp_path, "sys.exit('detent.worker.supervisor' not in sys.modules)").returncode == 0
