"""`detent envvars`, on a database."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Detent

OLD, NEW = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETENT_ENCRYPTION_KEY", OLD)


def test_variables_are_set_listed_and_removed(at_database: Detent) -> None:
    done = at_database("envvars", "set", "URL=https://x?a=b", "EMPTY=", "--env", "prod")
    assert done.out == 'set in environment "prod": URL, EMPTY\n'
    assert at_database("envvars", "get", "URL", "--env", "prod").out == "https://x?a=b\n"
    assert at_database("envvars", "get", "EMPTY", "--env", "prod").out == "\n"
    rows = [line.split()[:3] for line in at_database("envvars", "list", "--env", "prod").out.splitlines()[1:]]
    assert rows == [["EMPTY", "prod", "1"], ["URL", "https://x?a=b", "prod"]]

    removed = at_database("envvars", "unset", "URL", "NONE", "--env", "prod")
    assert removed.out == 'removed in environment "prod": URL\n'
    assert 'warning: environment "prod" had no NONE of its own' in removed.err
    assert [variable["name"] for variable in at_database("envvars", "list", "--env", "prod", "--json").json] == ["EMPTY"]


def test_secret_is_shown_nowhere(at_database: Detent) -> None:
    at_database("envvars", "set", "API_KEY=topsecret", "--secret")
    printed = [at_database("envvars", *command) for command in (["list"], ["list", "--json"], ["get", "API_KEY"])]
    assert not any("topsecret" in done.out + done.err for done in printed)
    assert "********" in printed[0].out
    assert printed[1].json[0]["value"] is None
    assert (printed[2].code, printed[2].err) == (
        2,
        "error: API_KEY is secret: its value is given to runs alone; set another one if you have lost it\n",
    )


def test_value_is_read_from_stdin_where_none_is_given(at_database: Detent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("two\nlines\n"))
    at_database("envvars", "set", "PEM")
    assert at_database("envvars", "get", "PEM").out == "two\nlines\n"


def test_file_is_imported_and_keeps_what_is_there_unless_told(at_database: Detent, tmp_path: Path) -> None:
    (tmp_path / "e").write_text("A=new\nB=new\n")
    at_database("envvars", "set", "A=old")
    assert at_database("envvars", "import", "e").out == (
        'set in environment "dev": B\n1 were there already and stay as they are; --override changes them, too\n'
    )
    assert at_database("envvars", "import", "e", "--override").out == 'set in environment "dev": A, B\n'
    assert at_database("envvars", "get", "A").out == "new\n"


def test_preview_is_meant_where_no_branch_is_named(at_database: Detent) -> None:
    at_database("envvars", "set", "A=all", "B=all", "--env", "preview")
    at_database("envvars", "set", "B=mine", "--env", "preview", "--branch", "feat/x")
    found = at_database("envvars", "list", "--env", "preview", "--branch", "feat/x").out.splitlines()[1:]
    assert [line.split()[:3] for line in found] == [["A", "all", "preview"], ["B", "mine", "preview/feat/x"]]


@pytest.mark.parametrize(
    ("variable", "why"),
    [
        ("DETENT_DATABASE_URL=x", "DETENT_DATABASE_URL cannot be set: names with DETENT_ are detent's own"),
        ("1A=x", "'1A' is no name of a variable: use letters, digits and _"),
        (f"A={'x' * 65_537}", "the value of A is 65,537 bytes, over the limit of 65,536"),
    ],
)
def test_what_cannot_be_a_variable_is_refused(at_database: Detent, variable: str, why: str) -> None:
    refused = at_database("envvars", "set", "GOOD=1", variable)
    assert refused.code == 1
    assert refused.err.startswith(f"error: {why}")
    assert at_database("envvars", "list", "--json").json == []


def test_keys_are_rotated(at_database: Detent, monkeypatch: pytest.MonkeyPatch) -> None:
    at_database("envvars", "set", "A=1")
    monkeypatch.setenv("DETENT_ENCRYPTION_KEY", f"{NEW},{OLD}")
    assert at_database("envvars", "rotate", "--json").json == {"rotated": 1}
    monkeypatch.setenv("DETENT_ENCRYPTION_KEY", NEW)
    assert at_database("envvars", "get", "A").out == "1\n"


def test_missing_key_is_one_sentence(at_database: Detent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DETENT_ENCRYPTION_KEY")
    refused = at_database("envvars", "set", "A=topsecret")
    assert refused.code == 2
    assert refused.err.startswith("error: environment variables are kept sealed, and there is no key; DETENT_ENCRYPTION_KEY")
    assert "topsecret" not in refused.err


@pytest.mark.parametrize(
    ("text", "variables", "line"),
    [
        (OLD, ["A=1"], "ok       envvars  1, and the key opens all"),
        (NEW, ["A=1"], "wrong    envvars  runs are not given A: environment variables are sealed with another key"),
        (NEW, [], "ok       envvars  none; there is a key for them"),
        ("short", [], "wrong    envvars  a key of environment variables"),
        ("", [], "ok       envvars  none"),
        (OLD, ["PATH=/bin"], "warning  envvars  a worker started here gives runs its own PATH"),
    ],
)
def test_doctor_tries_the_key(
    at_database: Detent, monkeypatch: pytest.MonkeyPatch, text: str, variables: list[str], line: str
) -> None:
    if variables:
        at_database("envvars", "set", *variables)
    monkeypatch.setenv("DETENT_ENCRYPTION_KEY", text)
    found = [" ".join(shown.split()) for shown in at_database("doctor").out.splitlines()]
    assert [shown for shown in found if shown.startswith(" ".join(line.split()))], found
