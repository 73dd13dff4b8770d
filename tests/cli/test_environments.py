"""`detent environments`, and how every command finds out which one it is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Detent

CI = ("GITHUB_HEAD_REF", "GITHUB_REF_TYPE", "GITHUB_REF_NAME", "CI_COMMIT_BRANCH", "GIT_BRANCH")


@pytest.fixture(autouse=True)
def no_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*CI, "DETENT_PREVIEW_BRANCH"):
        monkeypatch.delenv(name, raising=False)


def test_environment_is_made_listed_and_archived(at_database: Detent) -> None:
    made = at_database("environments", "create", "qa", "--type", "production", "--json").json
    assert (made["name"], made["type"], made["archived_at"]) == ("qa", "PRODUCTION", None)
    at_database("trigger", "hello", "--env", "qa")

    archived = at_database("environments", "archive", "qa").out
    assert archived == (
        'environment "qa" is archived; `detent environments create qa` brings it back\nin it: 1 queued, 0 running, 0 waiting\n'
    )
    assert at_database("environments", "list").out.startswith("there is no environment yet")
    assert at_database("environments", "list", "--all").out.splitlines()[1].split()[:4] == ["qa", "PRODUCTION", "1", "0"]
    refused = at_database("trigger", "hello", "--env", "qa")
    assert refused.code == 1
    assert 'error: environment "qa" is archived: nothing can be written to it' in refused.err

    assert at_database("environments", "create", "qa").out == 'environment "qa" of type PRODUCTION is there\n'
    assert at_database("trigger", "hello", "--env", "qa").code == 0


def test_branch_is_named_in_one_part_or_in_two(at_database: Detent) -> None:
    assert at_database("environments", "create", "preview", "--branch", "feat/x").code == 0
    assert at_database("environments", "create", "preview/feat/x").code == 0
    assert [record["name"] for record in at_database("environments", "list", "--json").json] == ["preview", "preview/feat/x"]


def test_name_that_is_none_is_an_error_that_says_which_are(at_database: Detent) -> None:
    refused = at_database("runs", "list", "--env", "Prod EU")
    assert refused.code == 2
    assert "error: 'Prod EU' is no name of an environment: use lower-case letters, digits, - and _" in refused.err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--env", "preview", "--branch", "feat/x"], "preview/feat/x"),
        (["--env", "preview/feat/y"], "preview/feat/y"),
        (["--env", "preview"], "preview/of-git"),
    ],
)
def test_command_is_about_the_branch_that_is_named_or_worked_on(
    at_database: Detent, tmp_path: Path, arguments: list[str], name: str
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/of-git\n")
    at_database("trigger", "hello", *arguments)
    assert name in [record["name"] for record in at_database("environments", "list", "--json").json]


def test_variable_goes_before_git_and_counts_for_previews_alone(
    at_database: Detent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETENT_PREVIEW_BRANCH", "feat/x")
    at_database("trigger", "hello", "--env", "preview")
    at_database("trigger", "hello", "--env", "prod")
    found = [record["name"] for record in at_database("environments", "list", "--json").json]
    assert found == ["preview", "preview/feat/x", "prod"]


def test_preview_without_a_branch_is_an_error_that_asks_for_it(at_database: Detent) -> None:
    refused = at_database("trigger", "hello", "--env", "preview")
    assert (refused.code, refused.err) == (
        2,
        "error: which branch? git has none checked out here, and no CI names one; give --branch\n",
    )


def test_env_file_is_read_before_other_options(
    at_database: Detent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETENT_ENVIRONMENT", "")  # to be as it was after the test
    monkeypatch.delenv("DETENT_ENVIRONMENT")
    (tmp_path / "prod.env").write_text("DETENT_ENVIRONMENT=prod\n")
    at_database("trigger", "hello", "--env-file", "prod.env")
    assert [record["name"] for record in at_database("environments", "list", "--json").json] == ["prod"]
    refused = at_database("runs", "list", "--env-file", "none.env")
    assert (refused.code, refused.err) == (2, "error: there is no env file none.env; name one that is there\n")
