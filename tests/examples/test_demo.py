from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


@pytest.mark.acceptance
def test_demo_loses_a_process_and_gets_everything_right() -> None:
    # It must not touch the database that the environment names.
    environment = os.environ | {"DETENT_DATABASE_URL": "postgresql://nobody@localhost:1/nothing"}
    done = subprocess.run([sys.executable, str(DEMO)], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill -9 " in done.stdout
    assert "All right after " in done.stdout
    assert "WRONG" not in done.stdout
