from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import subprocess
import time
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from detent.cli.dev import place
from detent.cli.init import EXAMPLE_CALL
from detent.cli.project import Project as Place
from tests.cli.project import DETENT, PATIENCE, Project
from tests.database import Clock
from tests.nursery import Nursery
from tests.pooler import direct, variables

TASKS = '''
import asyncio
from pathlib import Path
from detent import task, wait

@task
async def double(n: int) -> int:
    return 2 * n

@task
async def gated(n: int) -> str:
    """Executes until the file `gate` is there."""
    while not Path("gate").exists():
        await asyncio.sleep(0.01)
    return "old"

@task
async def waiting(n: int) -> str:
    await wait.for_(seconds=n)
    return "old"
'''


NAMED_BY_VARIABLE = """
import os
from detent import define_config
config = define_config(project=os.environ["A"])
"""
FINDS_VARIABLES = """
import os
from detent import Context, task

FIRST = os.environ["A"]

@task
def found(n: int, ctx: Context) -> list[str]:
    return [FIRST, os.environ["A"], os.environ["OF_SHELL"], ctx.project.id]
"""


@pytest.fixture
def tasks(shop: Project) -> Project:
    shop.write("tasks/some.py", TASKS)
    return shop


def trigger(project: Project, task_id: str, payload: str = "1") -> str:
    return str(project.json("trigger", task_id, "--payload", payload)["id"])


def pass_time(dsn: str, *, seconds: int) -> None:
    with psycopg.connect(direct(dsn)) as connection:
        Clock(connection=connection).advance(timedelta(seconds=seconds))


def output(project: Project, task_id: str) -> object:
    done = project.detent("trigger", task_id, "--payload", "1", "--wait")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_dev_migrates_serves_and_says_how_to_trigger(empty_dsn: str, tasks: Project) -> None:
    project = Project(tasks.nursery, tasks.root, variables(empty_dsn))
    with project.serving() as dev:
        assert dev.line("ready: ").endswith("tasks: double, gated, waiting")
        assert dev.line("detent trigger ") == "  detent trigger double --payload 1 --wait"
        assert output(project, "double") == 2
        assert " double " in dev.line("completed", "attempt 1")
        assert dev.stop() == 0


def test_one_file_can_be_served_without_a_project(nursery: Nursery, fresh_dsn: str, tmp_path: Path) -> None:
    project = Project(nursery, tmp_path, variables(fresh_dsn))
    project.write("alone.py", TASKS)
    with project.serving("alone.py", "--json") as dev:
        assert dev.event("ready")["task_ids"] == ["double", "gated", "waiting"]


def test_run_that_nobody_takes_expires_after_ten_minutes_unless_the_config_says_otherwise(tasks: Project) -> None:
    for ttl, seconds in (("", 600), ('ttl="1h"', 3600), ("ttl=0", None)):
        tasks.write("detent_config.py", f"from detent import define_config\nconfig = define_config({ttl})\n")
        with tasks.serving("--json") as dev:
            dev.event("ready")
        run = tasks.json("runs", "get", trigger(tasks, "double"))
        assert lifetime(run["created_at"], run["expires_at"]) == seconds


def lifetime(created_at: str, expires_at: str | None) -> int | None:
    if expires_at is None:
        return None
    return round((datetime.fromisoformat(expires_at) - datetime.fromisoformat(created_at)).total_seconds())


def test_saved_code_is_taken_without_losing_a_run(tasks: Project, fresh_dsn: str) -> None:
    with tasks.serving("--json") as dev:
        dev.event("ready")
        executing, waiting = trigger(tasks, "gated"), trigger(tasks, "waiting", "6")
        dev.event("started", run_id=executing)
        dev.event("waiting", run_id=waiting)
        saved = time.monotonic()
        tasks.write("tasks/some.py", TASKS.replace("2 * n", "3 * n").replace('"old"', '"new"'))
        dev.event("reloaded")
        assert time.monotonic() - saved < 5
        assert output(tasks, "double") == 3
        dev.event("handed_back", run_id=executing)
        tasks.write("gate", "")
        pass_time(fresh_dsn, seconds=10)
        ended = set[str]()
        while not ended >= {executing, waiting}:
            ended.add(dev.event("succeeded")["run_id"])
        for run_id in (executing, waiting):
            run = tasks.json("runs", "get", run_id)
            assert (run["output"], run["attempt"]) == ("new", 1)


def test_env_files_are_for_config_and_code_and_taken_again_when_saved(tasks: Project, fresh_dsn: str) -> None:
    project = Project(tasks.nursery, tasks.root, {"DETENT_ENCRYPTION_KEY": "k" * 43 + "=", "OF_SHELL": "shell"})
    project.write(".env", f"DETENT_DATABASE_URL={direct(fresh_dsn)}\nA=1\nOF_SHELL=file\n")
    project.write("detent_config.py", NAMED_BY_VARIABLE)
    project.write("tasks/found.py", FINDS_VARIABLES)
    with project.serving("--json") as dev:
        dev.event("ready")
        caller = Project(tasks.nursery, tasks.root, variables(fresh_dsn))
        assert output(caller, "found") == ["1", "1", "shell", "1"]
        project.write(".env.local", "A=2\n")
        dev.event("reloaded")
        assert output(caller, "found") == ["2", "2", "shell", "2"]


def test_saved_config_is_taken_with_the_code(tasks: Project) -> None:
    with tasks.serving("--json") as dev:
        dev.event("ready")
        tasks.write("detent_config.py", "config = 1\n")
        assert "detent_config.py must set config" in dev.event("error")["detail"]
        tasks.write("others/other.py", TASKS.replace("2 * n", "5 * n"))
        config = 'from detent import define_config\nconfig = define_config(dirs=["others"])\n'
        tasks.write("detent_config.py", config)
        dev.event("reloaded")
        assert output(tasks, "double") == 5


def test_code_that_does_not_load_leaves_the_old_code_at_work(tasks: Project) -> None:
    with tasks.serving("--json") as dev:
        dev.event("ready")
        tasks.write("tasks/some.py", TASKS + "\nthis is no Python\n")
        assert "tasks/some.py:" in dev.event("not_reloaded")["detail"]
        assert output(tasks, "double") == 2
        tasks.write("tasks/some.py", TASKS.replace("2 * n", "3 * n"))
        dev.event("reloaded")
        assert output(tasks, "double") == 3


def test_tasks_that_do_not_load_are_a_sentence_and_exit_code_2(shop: Project) -> None:
    shop.write("tasks/some.py", "from detent import tusk\n")
    done = shop.detent("dev")
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot load tasks/some.py:1: ImportError: ")
    assert "Traceback" not in done.stderr


def test_interrupt_hands_back_what_does_not_end_and_the_next_start_goes_on(tasks: Project) -> None:
    with tasks.serving("--json") as dev:
        dev.event("ready")
        run_id = trigger(tasks, "gated")
        dev.event("started", run_id=run_id)
        dev.process.send_signal(signal.SIGINT)
        dev.event("stopping")
        assert dev.stop() == 0  # the second one
    assert tasks.json("runs", "get", run_id)["status"] == "QUEUED"
    tasks.write("gate", "")
    with tasks.serving("--json") as dev:
        dev.event("succeeded", run_id=run_id)
    assert tasks.json("runs", "get", run_id)["attempt"] == 1


def test_interrupted_wait_says_that_the_run_goes_on(tasks: Project) -> None:
    with tasks.serving("nobody", "--wait", command="trigger") as call:
        call.line("warning: no worker has registered")
        call.process.send_signal(signal.SIGINT)
        call.line("the run goes on: detent runs get run_")
        assert call.process.wait(PATIENCE) == 130


def test_dev_without_a_database_brings_its_own_and_shares_it(nursery: Nursery, project: Path) -> None:
    shop = Project(nursery, project)
    shop.detent("init")
    with shop.serving("--json") as dev:
        assert dev.event("ready")["database"].endswith(" in .detent")
        done = shop.execute([*DETENT, *shlex.split(EXAMPLE_CALL)[1:]], folder="tasks")
        assert (done.returncode, done.stdout) == (0, '"Hello, Ada!"\n'), done.stderr


def test_failed_run_waited_for_is_exit_code_1(tasks: Project) -> None:
    tasks.write("tasks/bad.py", "from detent import task\n@task(retry=1)\ndef bad(): raise ValueError('no good')\n")
    with tasks.serving("--json") as dev:
        dev.event("ready")
        done = tasks.detent("trigger", "bad", "--wait")
        assert done.returncode == 1
        assert done.stderr.endswith("is FAILED after 1 attempts: ValueError: no good\n")
        assert tasks.detent("runs", "logs", done.stderr.split()[2]).returncode == 0


def test_terminal_shows_what_goes_on_and_gets_its_prompt_back(tasks: Project) -> None:
    mine, theirs = pty.openpty()
    environment = tasks.environment() | {"TERM": "xterm", "COLUMNS": "150", "LINES": "40"}
    process = subprocess.Popen([*DETENT, "dev"], cwd=tasks.root, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = Terminal(mine)
    try:
        seen.until("ready:")
        trigger(tasks, "gated")
        seen.until("executing")
        tasks.write("gate", "")
        seen.until("completed")
        process.send_signal(signal.SIGINT)
        seen.until("stopping:")
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(mine)


class Terminal:
    """What a program has written to its terminal."""

    def __init__(self, end: int) -> None:
        self._end, self.text = end, ""

    def until(self, part: str) -> None:
        while part not in self.text:
            try:
                self.text += os.read(self._end, 65_536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"no {part!r} in {self.text}") from None


def test_folder_with_a_config_is_the_project_and_any_other_path_is_its_tasks(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    (shop / "tasks").mkdir(parents=True)
    (shop / "detent_config.py").touch()
    assert place(shop, tmp_path) == (Place(root=shop), None)
    assert place(None, shop / "tasks") == (Place(root=shop), None)
    assert place(shop / "tasks", shop) == (Place(root=shop), shop / "tasks")
    assert place(Path("a.py"), tmp_path) == (Place(root=tmp_path), Path("a.py"))


def test_worker_serves_until_a_signal_drains_it(tasks: Project) -> None:
    with tasks.serving("--json", "--runners", "1", command="worker") as worker:
        worker.event("ready")
        assert len(worker.runners()) == 1
        run_id = trigger(tasks, "double", "5")
        worker.event("succeeded", run_id=run_id)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(PATIENCE) == 0


def test_worker_prints_a_line_for_each_run_only_when_asked(tasks: Project) -> None:
    with tasks.serving("--show-runs", command="worker") as worker:
        worker.line("ready: ")
        trigger(tasks, "double")
        worker.line(" double ", "completed")


