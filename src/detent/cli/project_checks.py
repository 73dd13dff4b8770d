"""What of a set-up can be told without a database: Python, the config, and the files of tasks."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from detent.cli import database
from detent.cli.finding import Finding, ok, warning, wrong
from detent.errors import DetentError
from detent.sdk import discovery, source
from detent.sdk.config import Config
from detent.sdk.registry import registry

OLDEST_PYTHON = (3, 11)
_MOST_NAMED = 10


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    text = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        needed = ".".join(map(str, OLDEST_PYTHON))
        return wrong(
            "python", f"{text} is too old: make an environment with Python {needed} or newer, and install detent there"
        )
    return ok("python", text)


def check_variables(variables: Mapping[str, str]) -> Iterator[Finding]:
    if variables.get(database.LISTEN_URL) and not variables.get(database.URL):
        text = f"{database.LISTEN_URL} is not heeded without {database.URL}: set both, or neither for the embedded database"
        yield warning("variables", text)


def check_project(folder: Path) -> Iterator[Finding]:
    """Check the project around a folder. Loads its files, and lets nothing that they print go to stdout."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            config = discovery.load_config(folder)
        except DetentError as error:
            yield wrong("config", str(error))
            return
        yield _config(folder, config)
        yield from _check_tasks(config)


def _config(folder: Path, config: Config) -> Finding:
    file = discovery.find_config(folder)
    if file is None:
        return warning("config", f"there is no detent_config.py in {folder} or above it: make one with `detent init`")
    return ok("config", f'{source.relative(str(file))} of project "{config.project}"')


def _check_tasks(config: Config) -> Iterator[Finding]:
    try:
        files = discovery.task_files(config)
    except DetentError as error:
        yield wrong("tasks", str(error))
        return
    broken = [finding for file in files if (finding := _load(file, config.root))]
    yield from broken
    if not broken:
        yield _count_tasks(len(files))


def _load(file: Path, root: Path) -> Finding | None:
    try:
        discovery.load_file(file, root)
    except DetentError as error:
        return wrong("tasks", str(error))
    return None


def _count_tasks(files: int) -> Finding:
    found = [task.id for task in registry.all()]
    if not found:
        return warning("tasks", f"{files} files define no task: put @task above a function")
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return ok("tasks", f"{len(found)} in {files} files: {', '.join(found[:_MOST_NAMED])}{more}")
