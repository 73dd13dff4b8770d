from __future__ import annotations

from pathlib import Path

import pytest

from detent.sdk.discovery import load_config
from tests.cli.conftest import Detent
from tests.cli.project import Project


def test_init_makes_a_project_that_loads(at_database: Detent, tmp_path: Path) -> None:
    done = at_database("init", "shop")
    assert done.code == 0
    assert {line for line in done.out.splitlines() if line.startswith("made ")} == {
        "made shop/detent_config.py",
        "made shop/tasks/hello.py",
    }
    config = load_config(tmp_path / "shop")
    assert (config.project, config.dirs) == ("shop", ("tasks",))


def test_init_keeps_what_is_there(at_database: Detent, tmp_path: Path) -> None:
    config, task = tmp_path / "detent_config.py", tmp_path / "tasks" / "mine.py"
    task.parent.mkdir()
    config.write_text("config = 1\n")
    task.write_text("")
    assert at_database("init", "--json").json["made"] == []
    assert config.read_text() == "config = 1\n"
    assert [file.name for file in task.parent.iterdir()] == ["mine.py"]


@pytest.mark.parametrize("times", [1, 2])
def test_init_makes_the_embedded_database_and_keeps_it_out_of_git(project: Path, times: int) -> None:
    for _ in range(times):
        done = Project(project).json("init")
        assert done["postgres"].split(".")[0].isdigit()
    assert (project / ".detent" / ".gitignore").read_text() == "*\n"
