"""Env files, as `detent dev` loads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from detent.cli import env_files
from detent.errors import ConfigError


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(os.environ)
    monkeypatch.setenv("OF_SHELL", "shell")
    yield
    os.environ.clear()
    os.environ.update(before)


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


def test_later_files_go_before_earlier_ones_and_the_shell_before_all(tmp_path: Path) -> None:
    write(
        tmp_path,
        _env="A=1\nB=1\nC=1\nD=1\nE=1\nOF_SHELL=1",
        _env_development="B=2\nC=2\nD=2\nE=2",
        _env_local="C=3\nD=3\nE=3",
        _env_development_local="D=4\nE=4",
        named="E=5",
    )
    env_files.of_development(tmp_path, [tmp_path / "named"]).load()
    assert [os.environ[name] for name in "ABCDE"] == ["1", "2", "3", "4", "5"]
    assert os.environ["OF_SHELL"] == "shell"


def test_what_is_in_no_file_any_more_is_gone_after_the_next_load(tmp_path: Path) -> None:
    files = env_files.of_development(tmp_path, [])
    write(tmp_path, _env="A=1\nB=1\nOF_SHELL=1")
    files.load()
    write(tmp_path, _env="B=2")
    files.load()
    assert (os.environ.get("A"), os.environ["B"], os.environ["OF_SHELL"]) == (None, "2", "shell")


def test_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no env file .*none; name one that is there"):
        env_files.of_development(tmp_path, [tmp_path / "none"]).load()


@pytest.mark.parametrize(("text", "line"), [("A=1\nB\n", 2), ("A='topsecret\n", 1)])
def test_line_that_sets_nothing_is_named_and_not_shown(tmp_path: Path, text: str, line: int) -> None:
    write(tmp_path, _env=text)
    with pytest.raises(ConfigError, match=rf"\.env has no NAME=value in line {line};") as refused:
        env_files.of_development(tmp_path, []).load()
    assert "topsecret" not in str(refused.value)


def test_quotes_comments_and_export_are_understood(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text('# c\nexport A="two\nlines" # c\nB=\'${A}\'\nC=x # c\nD=a=b\nE=\n\n')
    assert env_files.read(file) == {"A": "two\nlines", "B": "${A}", "C": "x", "D": "a=b", "E": ""}
