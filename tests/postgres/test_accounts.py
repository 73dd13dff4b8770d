"""Under whose account the server runs, and who may use it."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from detent.errors import EmbeddedServerError
from detent.postgres import account, binaries, embedded, home, postmaster
from detent.postgres.account import Account
from tests.postgres.user import User

as_root = pytest.mark.skipif(os.geteuid() != account.ROOT, reason="only root has accounts to choose from")

BECOME_AND_JOIN = """
import os, sys
from pathlib import Path
import psutil, psycopg
from detent.postgres import embedded
folder = Path(sys.argv[1])
uid = folder.parent.stat().st_uid
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
os.environ["HOME"] = "/nonexistent"
try:
    with embedded.start(folder) as server, psycopg.connect(server.dsn) as connection:
        print(connection.execute("select 'works'").fetchone()[0])
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def folder(project: Path) -> Path:
    return project / ".detent"


def nobody() -> Account:
    entry = pwd.getpwnam("nobody")
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def works(folder: Path) -> bool:
    with embedded.start(folder) as server, psycopg.connect(server.dsn) as connection:
        return connection.execute("select 1").fetchone() == (1,)


def modes(folder: Path) -> list[int]:
    return [step.stat().st_mode for step in (folder, *folder.parents)]


def uids_of(processes: Iterable[psutil.Process]) -> Iterator[int]:
    """Of those that are still there: a server's helpers come and go."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            yield process.uids().real


@as_root
def test_root_runs_it_under_an_account_without_privileges(folder: Path) -> None:
    with embedded.start(folder):
        (uid,) = set(uids_of(postmaster.processes(home.settle(folder))))
        assert uid != account.ROOT
        assert not home.settle(folder).path.is_symlink()


@as_root
def test_in_a_private_project_of_root_the_data_lies_elsewhere_and_no_folder_is_opened(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "SYSTEM_FOLDER", project / "system")
    private = project / "private"
    private.mkdir(mode=0o700)
    before = modes(private)
    assert works(private / ".detent")
    assert modes(private) == before
    assert (private / ".detent" / "postgres").readlink().parent == project / "system"
    assert works(private / ".detent")
    assert len(list((project / "system").iterdir())) == 1


@as_root
def test_data_that_was_left_on_another_machine_is_made_anew(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "SYSTEM_FOLDER", project / "system")
    folder = project / ".detent"
    folder.mkdir(mode=0o700)
    (folder / "postgres").symlink_to("/var/lib/detent/gone")
    assert works(folder)


@as_root
def test_programs_in_a_private_place_are_copied_to_where_the_account_may_run_them(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (newest, *_) = binaries.find()
    monkeypatch.setattr(Account, "may_enter", lambda *_: False)
    for _ in range(2):
        copied = binaries.usable_by(nobody(), newest, project / "system")
    printed = subprocess.run(
        [copied.program("initdb"), "-V"], check=True, capture_output=True, text=True, user="nobody"
    )
    assert newest.version in printed.stdout
    assert len(list((project / "system").iterdir())) == 1


@as_root
def test_an_ordinary_user_needs_no_root(project: Path) -> None:
    nobody().take(project)
    with User(project / ".detent", BECOME_AND_JOIN) as user:
        assert user.leave() == "works"
    assert (project / ".detent").stat().st_uid == nobody().uid


@as_root
def test_root_and_the_owner_of_a_project_share_its_server(project: Path) -> None:
    nobody().take(project)
    with embedded.start(project / ".detent") as server:
        with User(project / ".detent", BECOME_AND_JOIN) as user:
            assert user.leave() == "works"
        assert embedded.running(project / ".detent") == server.dsn
    with User(project / ".detent", BECOME_AND_JOIN) as user:
        assert user.leave() == "works"


@as_root
def test_another_user_is_told_that_the_data_is_not_theirs(project: Path) -> None:
    assert works(project / ".detent")
    nobody().take(project)
    settled = home.settle(project / ".detent")
    os.chown(settled.path, pwd.getpwnam("daemon").pw_uid, -1)
    with User(project / ".detent", BECOME_AND_JOIN) as user:
        assert "EmbeddedServerError" in (said := user.leave())
        assert "its data belongs to another user; run as that user, or as root" in said


@as_root
def test_a_machine_without_any_account_says_which_to_add(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "SERVICE_ACCOUNTS", ("nobody-here", "nobody-there"))
    with pytest.raises(EmbeddedServerError, match="there is no account nobody-here or nobody-there; add one of them"):
        embedded.start(folder)


@as_root
def test_a_socket_folder_that_somebody_else_made_first_is_not_used(folder: Path) -> None:
    settled = home.settle(folder)
    taken = Path("/tmp") / f"detent-{settled.account.uid}-{settled.digest}"
    taken.mkdir(mode=0o777)
    try:
        with embedded.start(folder) as server:
            assert str(taken) + "'" not in server.dsn
        assert taken.exists()
    finally:
        taken.rmdir()
