"""The branch of git that is worked on: the one that is checked out, else the one that a CI says it builds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_HEADS = "refs/heads/"
CI_VARIABLES = (
    "GITHUB_HEAD_REF",  # of pull requests alone
    "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME",  # GitLab
    "CI_COMMIT_BRANCH",
    "BITBUCKET_BRANCH",
    "CIRCLE_BRANCH",
    "BUILDKITE_BRANCH",
    "TRAVIS_PULL_REQUEST_BRANCH",
    "TRAVIS_BRANCH",
    "CHANGE_BRANCH",  # Jenkins, of pull requests
    "BRANCH_NAME",
    "SYSTEM_PULLREQUEST_SOURCEBRANCH",  # Azure Pipelines
    "BUILD_SOURCEBRANCH",
    "VERCEL_GIT_COMMIT_REF",
)
"""Those of pull requests go first: beside them the others name what is merged into, or no branch at all."""


def detect(folder: Path, variables: Mapping[str, str]) -> str | None:
    """Return the branch that *folder* has checked out, else the one that a CI names; None when nothing tells."""
    return _checked_out(folder) or _built(variables)


def _checked_out(folder: Path) -> str | None:
    """Git itself need not be there to read this. A detached HEAD, as a CI has it, names no branch."""
    for place in (folder, *folder.parents):
        head = _git_folder(place / ".git") / "HEAD"
        if head.is_file():
            what, _, ref = head.read_text(encoding="utf-8").strip().partition(" ")
            return ref.removeprefix(_HEADS) if what == "ref:" and ref.startswith(_HEADS) else None
    return None


def _git_folder(git: Path) -> Path:
    """Return where a working tree's HEAD lies: of a linked tree, `.git` is a file that says it."""
    if not git.is_file():
        return git
    return git.parent / git.read_text(encoding="utf-8").strip().removeprefix("gitdir: ")


def _built(variables: Mapping[str, str]) -> str | None:
    if variables.get("GITHUB_REF_TYPE") == "branch" and not variables.get("GITHUB_HEAD_REF"):
        return variables.get("GITHUB_REF_NAME") or None
    if git_branch := variables.get("GIT_BRANCH"):  # Jenkins, with the remote's name in front
        return git_branch.removeprefix("origin/")
    found = next((variables[name] for name in CI_VARIABLES if variables.get(name)), None)
    return found and found.removeprefix(_HEADS)
