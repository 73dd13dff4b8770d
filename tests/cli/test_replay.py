"""`detent replay`: would the code that is here go on with a run that waits?"""

from __future__ import annotations

import pytest

from tests.cli.project import Project

RECORDED = """
from pathlib import Path
from detent import step, task, wait

@task
async def child(n: int) -> int:
    return n

@task
async def parent(n: int) -> int:
    price = await step("price", lambda: n * 2)
    await child.call(price)
    await wait.for_(days=30)
    await step("charge", lambda: Path("charged").touch())
    return price
"""
SWAPPED = RECORDED.replace(
    "await child.call(price)\n    await wait.for_(days=30)", "await wait.for_(days=30)\n    await child.call(price)"
)
SWAP = "    await wait.for_(days=30)"
SHORTENED = RECORDED.replace(
    '    await wait.for_(days=30)\n    await step("charge", lambda: Path("charged").touch())\n', ""
)
CHANGED_STEP = RECORDED.replace("n * 2", "1 / 0")


@pytest.fixture
def waiting(shop: Project) -> str:
    """A run that waits, recorded by a worker that is gone."""
    shop.write("tasks/recorded.py", RECORDED)
    with shop.serving("tasks/recorded.py", "--show-runs", command="worker") as worker:
        worker.line("ready")
        run_id: str = shop.json("trigger", "parent", "--payload", "21")["id"]
        worker.line(run_id, "waiting")
        worker.line(run_id, "waiting")
    return run_id


def test_replay_tells_the_same_code_from_code_that_differs(shop: Project, waiting: str) -> None:
    same = shop.detent("replay", waiting, "tasks/recorded.py")
    assert (same.returncode, same.stderr) == (0, "")
    assert "3 of 3 recorded operations repeated" in same.stdout
    shop.write("tasks/recorded.py", CHANGED_STEP)
    assert shop.json("replay", waiting, "tasks/recorded.py")["difference"] == ""
    shop.write("tasks/recorded.py", SWAPPED)
    swapped = shop.json("replay", waiting, "tasks/recorded.py")
    assert "recorded child of child as its operation main/0" in swapped["difference"]
    assert "asks for time" in swapped["difference"]
    assert f"recorded.py:{SWAPPED.splitlines().index(SWAP) + 1})" in swapped["difference"]
    shop.write("tasks/recorded.py", SHORTENED)
    shortened = shop.detent("replay", waiting, "tasks/recorded.py")
    assert shortened.returncode == 1
    assert "recorded time as its operation main/1, and the code does not ask for it" in shortened.stdout
    assert not (shop.root / "charged").exists()
    assert shop.json("runs", "get", waiting)["status"] == "WAITING"


def test_replay_of_no_run_or_one_that_is_over_says_so(shop: Project) -> None:
    shop.write("tasks/recorded.py", RECORDED)
    unknown = shop.detent("replay", "run_01m8591rvpf1abgj4ej5a0x30m", "tasks/recorded.py")
    assert unknown.returncode != 0
    assert "there is no run run_01m8591rvpf1abgj4ej5a0x30m" in unknown.stderr
    over: str = shop.json("trigger", "child", "--payload", "1")["id"]
    shop.detent("runs", "cancel", over)
    ended = shop.detent("replay", over, "tasks/recorded.py")
    assert "is CANCELED: what it had recorded went with its end" in ended.stderr
