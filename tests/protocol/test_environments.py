"""How environments are named."""

from __future__ import annotations

import pytest

from detent.errors import ConfigError
from detent.protocol import environments


@pytest.mark.parametrize("name", ["dev", "eu-prod_2", "0", "preview/feat/checkout", "preview/Fix_#12", "preview/ümlaut"])
def test_slugs_and_branches_of_git_are_names(name: str) -> None:
    assert environments.check(name) == name


@pytest.mark.parametrize("name", ["", "Prod", "eu prod", "-x", "a" * 64, "prod\n", "ü"])
def test_slug_of_other_characters_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name of an environment: use lower-case letters, digits, - and _"):
        environments.check(name)


@pytest.mark.parametrize("branch", ["", "a b", "a..b", "/a", "a/", "a//b", "a~1", "x.lock", "a" * 201, "a\tb", "-a", "a@{1}"])
def test_branch_that_git_would_not_take_is_refused(branch: str) -> None:
    with pytest.raises(ConfigError, match="is no name of a branch that git would take"):
        environments.chosen("preview", branch)


def test_branch_is_named_once() -> None:
    with pytest.raises(ConfigError, match="names a branch already; leave out the branch 'b'"):
        environments.chosen("preview/a", "b")


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "dev"),
        ({"DETENT_ENVIRONMENT": "prod", "DETENT_PREVIEW_BRANCH": "feat"}, "prod"),
        ({"DETENT_ENVIRONMENT": "preview"}, "preview"),
        ({"DETENT_ENVIRONMENT": "preview", "DETENT_PREVIEW_BRANCH": "feat"}, "preview/feat"),
        ({"DETENT_ENVIRONMENT": "preview/other"}, "preview/other"),
    ],
)
def test_process_names_its_environment_by_variables(variables: dict[str, str], name: str) -> None:
    assert environments.named_by(variables) == name
