"""Which branch is worked on."""

from __future__ import annotations

from pathlib import Path

import pytest

from detent.cli.branch import detect

CHECKED_OUT, DETACHED = "ref: refs/heads/feat/x\n", "0123456789abcdef0123456789abcdef01234567\n"


def git(folder: Path, head: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "HEAD").write_text(head)
    return folder


def test_branch_is_the_one_checked_out_above(tmp_path: Path) -> None:
    git(tmp_path / ".git", CHECKED_OUT)
    (tmp_path / "deep").mkdir()
    assert detect(tmp_path / "deep", {"CI_COMMIT_BRANCH": "other"}) == "feat/x"


@pytest.mark.parametrize("is_absolute", [True, False])
def test_branch_of_a_linked_tree_is_its_own(tmp_path: Path, is_absolute: bool) -> None:
    place = git(tmp_path / "main" / ".git" / "worktrees" / "tree", CHECKED_OUT)
    tree = tmp_path / "tree"
    tree.mkdir()
    said = place if is_absolute else Path("..") / place.relative_to(tmp_path)
    (tree / ".git").write_text(f"gitdir: {said}\n")
    assert detect(tree, {}) == "feat/x"


@pytest.mark.parametrize(
    ("variables", "branch"),
    [
        ({}, None),
        ({"GITHUB_HEAD_REF": "feat", "GITHUB_REF_NAME": "7/merge", "GITHUB_REF_TYPE": "branch"}, "feat"),
        ({"GITHUB_HEAD_REF": "", "GITHUB_REF_NAME": "feat", "GITHUB_REF_TYPE": "branch"}, "feat"),
        ({"GITHUB_REF_NAME": "v1", "GITHUB_REF_TYPE": "tag"}, None),
        ({"CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": "feat", "CI_COMMIT_BRANCH": "main"}, "feat"),
        ({"CI_COMMIT_BRANCH": "feat"}, "feat"),
        ({"BITBUCKET_BRANCH": "feat"}, "feat"),
        ({"CIRCLE_BRANCH": "feat"}, "feat"),
        ({"BUILDKITE_BRANCH": "feat"}, "feat"),
        ({"TRAVIS_PULL_REQUEST_BRANCH": "feat", "TRAVIS_BRANCH": "main"}, "feat"),
        ({"GIT_BRANCH": "origin/feat/x"}, "feat/x"),
        ({"CHANGE_BRANCH": "feat", "BRANCH_NAME": "PR-7"}, "feat"),
        ({"SYSTEM_PULLREQUEST_SOURCEBRANCH": "refs/heads/feat/x"}, "feat/x"),
        ({"BUILD_SOURCEBRANCH": "refs/heads/feat"}, "feat"),
        ({"VERCEL_GIT_COMMIT_REF": "feat"}, "feat"),
    ],
)
def test_ci_names_the_branch_where_none_is_checked_out(
    tmp_path: Path, variables: dict[str, str], branch: str | None
) -> None:
    git(tmp_path / ".git", DETACHED)
    assert detect(tmp_path, variables) == branch
