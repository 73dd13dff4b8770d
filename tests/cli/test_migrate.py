from __future__ import annotations

import pytest

from detent import migrations
from tests.cli.conftest import Detent

NAMES = [str(migration) for migration in migrations.load()]


@pytest.fixture
def at_empty(detent: Detent, empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> Detent:
    monkeypatch.setenv("DETENT_DATABASE_URL", empty_dsn)
    return detent


def test_plan_says_what_would_be_applied_and_applies_nothing(at_empty: Detent) -> None:
    assert at_empty("migrate", "--plan").out.splitlines() == [f"would apply {name}" for name in NAMES]
    assert at_empty("migrate", "--plan", "--json").json == {"planned": NAMES}


def test_migrate_applies_what_is_missing_once(at_empty: Detent) -> None:
    assert at_empty("migrate").out.splitlines() == [f"applied {name}" for name in NAMES]
    assert at_empty("migrate").out == "the schema is up to date\n"
    assert at_empty("migrate", "--json").json == {"applied": []}
