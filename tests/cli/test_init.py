from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from detent.cli.init import CONFIG
from detent.sdk import config as config_module
from detent.sdk.discovery import load_config
from tests.cli.conftest import Detent
from tests.cli.project import Project
from tests.nursery import Nursery


def test_init_makes_a_project_that_loads(at_database: Detent, tmp_path: Path) -> None:
    done = at_database("init", "shop")
    assert done.code == 0
    assert {line for line in done.out.splitlines() if line.startswith("made ")} == {
        "made shop/detent_config.py",
        "made shop/tasks/hello.py",
        "made shop/.gitignore",
    }
    config = load_config(tmp_path / "shop")
    assert (config.project, config.dirs) == ("shop", ("tasks",))
    assert "  cd shop\n  detent dev\n" in done.out


def test_config_that_is_written_names_every_key_with_its_default(tmp_path: Path) -> None:
    """Each line behind # is put in force: the config is the same, but for those whose default is to say nothing."""
    given = re.sub(r"^    # (\w+=.*)$", r"    \1", CONFIG.format(project="shop"), flags=re.MULTILINE)
    assert set(re.findall(r"^    (\w+)=", given, re.MULTILINE)) == config_module.KNOWN
    (tmp_path / "tasks").mkdir()
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    given = given.replace("import define_config", "import Console, Retention, Retries, Retry, Telemetry, define_config")
    (tmp_path / "detent_config.py").write_text(given)
    config, default = load_config(tmp_path), config_module.default_config(tmp_path)
    for key in config_module.KNOWN - {"project", "dirs", "max_duration", "ttl", "machine", "extra_ca_certs"}:
        assert getattr(config, key) == getattr(default, key), key


def test_init_keeps_what_is_there(at_database: Detent, tmp_path: Path) -> None:
    config, task, ignored = tmp_path / "detent_config.py", tmp_path / "tasks" / "mine.py", tmp_path / ".gitignore"
    task.parent.mkdir()
    config.write_text("config = 1\n")
    task.write_text("")
    ignored.write_text("*.pyc\n.env\n.detent/")
    assert at_database("init", "--json").json["made"] == [".gitignore"]
    assert config.read_text() == "config = 1\n"
    assert [file.name for file in task.parent.iterdir()] == ["mine.py"]
    assert ignored.read_text() == "*.pyc\n.env\n.detent/\n.env*.local\n"


def test_second_init_makes_nothing(at_database: Detent) -> None:
    assert len(at_database("init", "--yes", "--json").json["made"]) == 3
    assert at_database("init", "--yes", "--json").json["made"] == []


def test_init_writes_anew_only_what_it_is_told_to(at_database: Detent, tmp_path: Path) -> None:
    at_database("init", "--project", "shop")
    (tmp_path / "tasks" / "hello.py").write_text("mine")
    (tmp_path / "tasks" / "other.py").write_text("mine")
    assert at_database("init", "--override", "--project", "market", "--json").json["made"] == [
        "detent_config.py",
        "tasks/hello.py",
    ]
    assert load_config(tmp_path).project == "market"
    assert (tmp_path / "tasks" / "other.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("pyproject", "lock", "says"),
    [
        ('[project]\ndependencies = ["httpx"]\n', None, 'does not name detent yet: add "detent" to its dependencies'),
        ('[project]\ndependencies = ["detent-extras"]\n', "uv.lock", "does not name detent yet: `uv add detent`"),
        ("[tool.poetry]\n", None, "does not name detent yet: `poetry add detent`"),
        ('[project]\ndependencies = ["detent[embedded]>=0.1"]\n', None, ""),
        ("[tool.poetry.dependencies]\ndetent = '*'\n", None, ""),
        ('[dependency-groups]\nworkers = ["detent", {include-group = "x"}]\n', None, ""),
    ],
)
def test_init_says_how_to_add_the_dependency_where_it_is_missing(
    at_database: Detent, tmp_path: Path, pyproject: str, lock: str | None, says: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(pyproject)
    if lock:
        (tmp_path / lock).write_text("")
    done = at_database("init")
    assert done.code == 0
    assert says in done.out
    assert says or "does not name" not in done.out
    assert (tmp_path / "pyproject.toml").read_text() == pyproject


def test_init_adds_the_dependency_when_asked_to(
    at_database: Detent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **options: called.append((command, options["cwd"])))
    (tmp_path / "pyproject.toml").write_text("[tool.uv]\n")
    assert at_database("init", "--add-dependency").code == 0
    assert called == [(["uv", "add", "detent"], Path())]

    (tmp_path / "pyproject.toml").write_text("[project]\n")
    refused = at_database("init", "--add-dependency")
    assert (refused.code, refused.err) == (
        2,
        'error: pyproject.toml is neither of uv nor of poetry: add "detent" to its dependencies yourself\n',
    )


@pytest.mark.parametrize("times", [1, 2])
def test_init_makes_the_embedded_database_and_keeps_it_out_of_git(nursery: Nursery, project: Path, times: int) -> None:
    for _ in range(times):
        done = Project(nursery, project).json("init")
        assert done["postgres"].split(".")[0].isdigit()
    assert (project / ".detent" / ".gitignore").read_text() == "*\n"
