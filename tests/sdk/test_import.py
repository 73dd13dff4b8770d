"""`import detent` is light, and exports what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import detent

MEANS = {"TYPE_CHECKING", "import_module"}
"""By which names that few programs use are loaded late."""
HEAVY = ("asyncio", "httpx", "jsonschema_rs", "logging", "opentelemetry", "psycopg", "pydantic", "rich", "typer", "uvloop")
NOT_YET = {
    "auth", "streams",
}  # fmt: skip
"""Names of the documented surface that later versions bring."""


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    return set(output.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import detent",
        "from detent import *",
        "from detent import Telemetry, define_config\ndefine_config()",
        "from detent import task\n@task\nasync def charge(order: dict[str, int]) -> None: ...",
    ],
)
def test_import_loads_nothing_heavy(statement: str) -> None:
    loaded = loaded_by(statement)

    assert not loaded & set(HEAVY)
    assert not [name for name in loaded if name.startswith(("detent.engine", "detent.postgres", "detent.worker"))]


def test_import_is_fast() -> None:
    """At most 60 ms over an empty interpreter on an idle machine of the kind the targets are for; here, counted in modules."""
    extra = loaded_by("import detent") - loaded_by("pass")

    assert len(extra) < 140, sorted(extra)


def test_exported_names_are_sorted_and_there() -> None:
    assert detent.__all__ == sorted(detent.__all__, key=lambda name: (not name.isupper(), name.islower(), name))
    assert [name for name in detent.__all__ if not hasattr(detent, name)] == []


def test_everything_public_is_exported() -> None:
    assert all(hasattr(detent, name) for name in detent.__all__)
    public = {
        name
        for name, value in vars(detent).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name not in MEANS
    }

    assert public == set(detent.__all__)


def test_every_error_is_exported() -> None:
    errors = {
        name for name, value in vars(detent.errors).items() if isinstance(value, type) and issubclass(value, Exception)
    }

    assert errors - set(detent.__all__) == set()


def test_what_comes_later_is_not_exported_yet() -> None:
    assert not NOT_YET & set(detent.__all__)


def test_package_is_typed() -> None:
    assert (Path(detent.__file__).parent / "py.typed").exists()


def test_public_names_are_documented() -> None:
    things = [value for name in detent.__all__ if (value := getattr(detent, name)) and isinstance(value, type)]

    assert [thing.__name__ for thing in things if not thing.__doc__ and not issubclass(thing, Exception)] == []
