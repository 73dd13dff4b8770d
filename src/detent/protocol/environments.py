"""Environments: isolated copies of a project in one database, and how they are named.

An environment is named by its slug, such as `prod`. A preview branch is an environment of its own; its name is the slug of the
one that it is a branch of, a slash, and the branch: `preview/feat/checkout`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from detent.errors import ConfigError

DEFAULT = "dev"
PREVIEW = "preview"
"""The environment whose branch is found by itself: see `named_by`."""
VARIABLE = "DETENT_ENVIRONMENT"
BRANCH_VARIABLE = "DETENT_PREVIEW_BRANCH"
LONGEST_BRANCH = 200

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_NO_BRANCH = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{|^/|/$|^-|\.$|\.lock$")
"""What git allows in no name of a branch."""


class EnvironmentType(StrEnum):
    """What an environment is for."""

    DEVELOPMENT = "DEVELOPMENT"
    """Somebody's own machine: schedules fire only while a worker runs, and missed ones are not made up."""
    STAGING = "STAGING"
    PRODUCTION = "PRODUCTION"
    PREVIEW = "PREVIEW"
    """Has branches, each an environment of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """An environment as those see it that are in it."""

    id: str
    """`env_…`"""
    slug: str
    type: EnvironmentType
    branch_name: str | None = None
    """The branch, where it is a preview of one."""

    @property
    def name(self) -> str:
        """What `environment=` and `--env` take: the slug, with a branch `slug/branch`."""
        return join(self.slug, self.branch_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentRecord:
    """An environment with what is in it: counts are of runs that are not over."""

    id: str
    name: str
    slug: str
    type: EnvironmentType
    branch_name: str | None
    created_at: datetime
    archived_at: datetime | None
    """Since when nothing may be written to it."""
    queued: int
    """Delayed ones, too."""
    running: int
    waiting: int


def join(slug: str, branch: str | None) -> str:
    """Return an environment's name.

    >>> join("preview", "feat/x"), join("prod", None)
    ('preview/feat/x', 'prod')
    """
    return slug if branch is None else f"{slug}/{branch}"


def split(name: str) -> tuple[str, str | None]:
    """Return the slug and the branch of a name.

    >>> split("preview/feat/x"), split("prod")
    (('preview', 'feat/x'), ('prod', None))
    """
    slug, slash, branch = name.partition("/")
    return slug, branch if slash else None


def check(name: str) -> str:
    """Return an environment's name. Raises `ConfigError` when it is none.

    >>> check("preview/feat/x")
    'preview/feat/x'
    """
    slug, branch = split(name)
    if not _SLUG.fullmatch(slug):
        raise ConfigError(
            f"{slug!r} is no name of an environment: use lower-case letters, digits, - and _, at most 63, such as eu-staging"
        )
    if branch is not None and (not branch or len(branch) > LONGEST_BRANCH or _NO_BRANCH.search(branch)):
        raise ConfigError(f"{branch!r} is no name of a branch that git would take, of at most {LONGEST_BRANCH} characters")
    return name


def chosen(slug: str, branch: str | None) -> str:
    """Return the name of an environment that was given in one part or in two. Raises `ConfigError`."""
    if branch is not None and "/" in slug:
        raise ConfigError(f"environment {slug!r} names a branch already; leave out the branch {branch!r}")
    return check(join(slug, branch))


def named_by(variables: Mapping[str, str]) -> str:
    """Return the environment that variables of a process name: DETENT_ENVIRONMENT, and for `preview` DETENT_PREVIEW_BRANCH.

    >>> named_by({"DETENT_ENVIRONMENT": "preview", "DETENT_PREVIEW_BRANCH": "feat/x"})
    'preview/feat/x'
    """
    slug = variables.get(VARIABLE) or DEFAULT
    branch = variables.get(BRANCH_VARIABLE) or None
    return chosen(slug, branch if slug == PREVIEW else None)
