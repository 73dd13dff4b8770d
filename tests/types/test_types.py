"""Both type checkers accept `accepted.py`, and refuse every line of `refused.py` that says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = [str(HERE / "accepted.py"), str(HERE / "refused.py")]
ROOT = HERE.parent.parent


def bin_of(name: str) -> str:
    return str(Path(sys.executable).parent / name)


@pytest.mark.parametrize("checker", [["mypy"], ["pyright", "--warnings"]], ids=["mypy", "pyright"])
def test_checker_accepts_and_refuses_what_it_must(checker: list[str]) -> None:
    name, *options = checker
    checked = subprocess.run(
        [bin_of(name), *options, *FILES], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
