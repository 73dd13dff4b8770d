"""What the package ships for coding agents is whole, and of its version."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from detent import skills
from detent.skills import Skill

ROOT = Path(__file__).parents[2]
SKILLS = skills.shipped()

every_skill = pytest.mark.parametrize("skill", SKILLS, ids=[skill.name for skill in SKILLS])


@every_skill
def test_skill_is_of_the_version_of_its_package(skill: Skill) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (skill.version, version("detent")) == (declared, declared)


@every_skill
def test_skill_names_itself_as_its_folder(skill: Skill) -> None:
    assert skill.name == skill.file.parent.name
    assert skills.find(skill.name) == skill


@every_skill
def test_pages_that_a_skill_draws_from_are_there(skill: Skill) -> None:
    assert skill.sources
    assert [str(page) for page in skill.sources if not page.is_file()] == []


@every_skill
def test_description_is_a_text_that_every_reader_of_yaml_takes(skill: Skill) -> None:
    assert not re.search(r": |:$| #|^[^A-Za-z]", skill.description)
    assert len(skill.description) <= 1024, "agents read no more of it"


@every_skill
def test_page_that_a_skill_names_is_among_its_sources(skill: Skill) -> None:
    named = {f"{name}.md" for name in re.findall(r"`(\w[\w-]*)\.md`", skill.text)}
    assert named <= {page.name for page in skill.sources}


def test_authoring_tasks_covers_every_capability_that_it_promises() -> None:
    (skill,) = [each for each in SKILLS if each.name == "authoring-tasks"]
    headings = set(re.findall(r"^##+ (.+)$", skill.text, re.MULTILINE))
    assert headings >= {
        "Set-up", "Tasks, payloads and outputs", "Retries", "Triggering", "Children and the Result", "Batches",
        "Waits, steps and tokens: the one rule", "Idempotency", "Hooks, middleware, locals", "Queues and limits",
        "Metadata and tags", "Logging and cancelling", "Schedules", "Config", "Testing", "Deployment", "Common mistakes",
    }  # fmt: skip


def test_installed_package_holds_the_skills_and_the_pages(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"detent/skills/{skill.name}/SKILL.md" for skill in SKILLS} <= names
    assert {f"detent/docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= names
    assert "detent/__init__.py" in names


def test_pages_of_an_installed_package_lie_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detent.skills.skill.FOLDER", tmp_path / "detent" / "skills")
    (tmp_path / "detent" / "docs").mkdir(parents=True)
    assert skills.pages() == tmp_path / "detent" / "docs"
