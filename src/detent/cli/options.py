"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from detent.cli import branch as git
from detent.cli.failure import UsageError
from detent.protocol import environments

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Environment: TypeAlias = Annotated[
    str, typer.Option("--env", envvar=environments.VARIABLE, help="The environment.", show_default=True)
]
Branch: TypeAlias = Annotated[
    str | None, typer.Option("--branch", help="The branch, of --env preview.  [default: the one of git, or of the CI]")
]
DEFAULT_ENVIRONMENT = environments.DEFAULT


def _load(files: list[Path] | None) -> list[Path]:
    from detent.cli.env_files import EnvFiles

    if files:
        EnvFiles(files).load()
    return files or []


_ENV_FILE_HELP = "A file of variables, of which those of the shell go first; may be repeated."
EnvFile: TypeAlias = Annotated[
    list[Path] | None,
    # Before the others: it may say what they are.
    typer.Option("--env-file", metavar="FILE", callback=_load, is_eager=True, help=_ENV_FILE_HELP),
]
ReloadedEnvFile: TypeAlias = Annotated[
    list[Path] | None, typer.Option("--env-file", metavar="FILE", help=_ENV_FILE_HELP)
]
"""For a command that loads them itself, and again when they are saved."""


def shared(command: Callable[..., object]) -> Callable[..., object]:
    """Return a command with the options of all: --env-file, and with its --env also --branch, unless it has them itself."""
    signature = inspect.signature(command, eval_str=True)
    added = {"env_file": EnvFile} | ({"branch": Branch} if "environment" in signature.parameters else {})
    added = {name: option for name, option in added.items() if name not in signature.parameters}

    @functools.wraps(command)
    def carry_out(**given: object) -> object:
        for name in added.keys() - {"branch"}:
            given.pop(name)
        if "branch" in added:
            given["environment"] = chosen(str(given["environment"]), given.pop("branch"))
        return command(**given)

    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in added.items()
    ]
    carry_out.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *parameters])  # type: ignore[attr-defined]
    return carry_out


def chosen(slug: str, branch: object) -> str:
    """Return the environment that --env and --branch name; of a preview without one, the branch that is worked on."""
    if branch is None and slug == environments.PREVIEW:
        branch = os.environ.get(environments.BRANCH_VARIABLE) or git.detect(Path.cwd(), os.environ)
        if branch is None:
            raise UsageError("which branch? git has none checked out here, and no CI names one; give --branch")
    return environments.chosen(slug, None if branch is None else str(branch))
