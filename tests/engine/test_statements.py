"""The statements in `engine/sql`, against the schema that the migrations make."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import detent.engine
from detent.engine.sql import STATEMENTS, load
from tests.engine.stage import Stage

ENGINE = Path(detent.engine.__file__).parent


@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_statement_fits_the_schema(stage: Stage, name: str) -> None:
    await stage.query("prepare checked as " + STATEMENTS[name].text.decode().replace("%", "%%"))
    await stage.query("deallocate checked")


def test_every_statement_is_called_and_every_call_has_its_statement() -> None:
    sources = "\n".join(path.read_text() for path in ENGINE.rglob("*.py"))
    called = set(re.findall(r'\.call\(\s*"(\w+)"', sources))
    assert called == set(STATEMENTS)


def test_statements_have_names_of_their_own() -> None:
    assert load() == STATEMENTS
