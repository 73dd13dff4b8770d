from __future__ import annotations

from pathlib import Path

import pytest

from detent import skills
from detent.cli.main import main
from tests.cli.conftest import Detent

SKILL = "authoring-tasks"
POINTER = "detent-authoring-tasks/SKILL.md"


def test_skills_are_listed_with_their_files_and_pages(detent: Detent) -> None:
    found = detent("skills", "list", "--json").json
    (skill,) = [each for each in found["skills"] if each["name"] == SKILL]
    assert Path(skill["file"]).is_file()
    assert f"{found['docs']}/tasks.md" in skill["sources"]
    shown = detent("skills", "list").out
    assert skill["file"] in shown
    assert found["docs"] in shown


def test_skill_is_shown_as_it_is(detent: Detent) -> None:
    text = skills.shipped()[0].file.read_text()
    assert detent("skills", "show", SKILL).out == text
    assert detent("skills", "show", SKILL, "--json").json["text"] == text


def test_unknown_skill_names_those_that_there_are(detent: Detent) -> None:
    done = detent("skills", "show", "authoring")
    assert (done.code, done.err) == (2, f'error: there is no skill "authoring"; these are: {SKILL}\n')


def test_pointer_names_the_file_of_the_installed_package_and_how_to_print_it(detent: Detent, tmp_path: Path) -> None:
    assert detent("skills", "install").out == f"wrote .agents/skills/{POINTER}\n"
    text = (tmp_path / ".agents/skills" / POINTER).read_text()
    assert str(skills.shipped()[0].file) in text
    assert f"detent skills show {SKILL}\n" in text
    assert text.startswith(f"---\nname: detent-{SKILL}\ndescription: {skills.shipped()[0].description}\n---\n")


def test_pointers_go_into_every_folder_of_skills_that_is_there(detent: Detent, tmp_path: Path) -> None:
    for folder in (".claude/skills", ".github/skills"):
        (tmp_path / folder).mkdir(parents=True)
    files = [pointer["file"] for pointer in detent("skills", "install", "--json").json]
    assert files == [str(tmp_path / folder / POINTER) for folder in (".claude/skills", ".github/skills")]
    assert not (tmp_path / ".agents").exists()


def test_a_second_install_changes_nothing(detent: Detent) -> None:
    detent("skills", "install")
    assert detent("skills", "install").out == f".agents/skills/{POINTER} is there already\n"
    assert detent("skills", "install", "--json").json[0]["is_changed"] is False


def test_pointer_that_says_something_else_is_replaced(detent: Detent, tmp_path: Path) -> None:
    detent("skills", "install")
    file = tmp_path / ".agents/skills" / POINTER
    text = file.read_text()
    file.write_text("of an older version")
    assert detent("skills", "install").out.startswith("wrote ")
    assert file.read_text() == text


def test_a_folder_may_be_named(detent: Detent, tmp_path: Path) -> None:
    (tmp_path / ".claude/skills").mkdir(parents=True)
    assert detent("skills", "install", "--into", ".cursor/skills").out == f"wrote .cursor/skills/{POINTER}\n"
    assert not (tmp_path / ".claude/skills" / POINTER).exists()


def test_pointers_go_to_the_root_of_the_project(
    detent: Detent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "detent_config.py").touch()
    (tmp_path / "tasks").mkdir()
    monkeypatch.chdir(tmp_path / "tasks")
    detent("skills", "install")
    assert (tmp_path / ".agents/skills" / POINTER).is_file()


def test_file_that_lies_in_the_project_is_named_relative_to_it(tmp_path: Path) -> None:
    skill = skills.shipped()[0]
    (pointer,) = skills.install(skill, skill.file.parents[2], tmp_path)
    assert f"read `skills/{SKILL}/SKILL.md`" in pointer.file.read_text()


def test_skills_need_no_database(detent: Detent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETENT_DATABASE_URL", "host=nowhere.invalid")
    assert main(["skills", "list"]) == 0
