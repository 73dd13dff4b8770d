"""The command line in this process, on a database of the test."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from detent.cli.main import main
from tests.cli.project import Project
from tests.nursery import Nursery
from tests.pooler import variables


@dataclass(frozen=True, slots=True)
class Done:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Detent = Callable[..., Done]


@pytest.fixture
def detent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Detent:
    """Carry out a `detent` command in this process, in a folder that is no project."""
    for name in ("DETENT_DATABASE_URL", "DETENT_LISTEN_URL", "DETENT_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def carry_out(*arguments: str) -> Done:
        code = main(arguments)
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return carry_out


@pytest.fixture
def at_database(detent: Detent, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Detent:
    """The same, on a migrated database."""
    for name, value in variables(dsn).items():
        monkeypatch.setenv(name, value)
    return detent


@pytest.fixture
def shop(nursery: Nursery, fresh_dsn: str, tmp_path: Path) -> Project:
    """A project on disk with a database of its own on the test's server."""
    shop = Project(nursery, tmp_path, variables(fresh_dsn))
    shop.write("detent_config.py", 'from detent import define_config\nconfig = define_config(project="shop")\n')
    return shop
