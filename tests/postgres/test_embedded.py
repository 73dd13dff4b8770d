"""The embedded server, among real processes that start, leave and are killed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import psycopg
import pytest

from detent.postgres import embedded, home, lifecycle, postmaster
from tests.postgres.user import User, several

LEAVE_BY_EXIT = """
import sys
from pathlib import Path
from detent.postgres import embedded
embedded.start(Path(sys.argv[1]))
"""
FORK_AND_STOP_IN_CHILD = """
import os, sys
from pathlib import Path
from detent.postgres import embedded
folder = Path(sys.argv[1])
server = embedded.start(folder)
if not (child := os.fork()):
    server.stop()
    os._exit(0)
os.waitpid(child, 0)
print(embedded.running(folder) == server.dsn)
"""
FORK_AND_LEAVE_BEFORE_CHILD = """
import os, sys
from pathlib import Path
from detent.postgres import embedded
folder = Path(sys.argv[1])
server = embedded.start(folder)
if not os.fork():
    sys.stdin.read()
    os._exit(0)
server.stop()
print(embedded.running(folder) == server.dsn, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(project: Path) -> Path:
    return project / ".detent"


@pytest.fixture(scope="module")
def made_folder() -> Iterator[Path]:
    """A `.detent` with its data made; no server runs when a test begins."""
    with tempfile.TemporaryDirectory(prefix="detent-project-", dir="/tmp") as project:
        Path(project).chmod(0o755)
        folder = Path(project) / ".detent"
        with embedded.start(folder):
            pass
        yield folder


@pytest.fixture
def used(made_folder: Path) -> Iterator[Path]:
    yield made_folder
    settled = home.settle(made_folder)
    left = postmaster.processes(settled)
    lifecycle.shut_down(settled)
    assert left == [], "the test left a server running"


def select(dsn: str, statement: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def postmaster_pid(folder: Path) -> int:
    found = postmaster.read_pid_file(home.settle(folder))
    assert found
    return found.pid


def kill_postmaster(folder: Path) -> None:
    process = psutil.Process(postmaster_pid(folder))
    process.kill()
    while postmaster.is_alive(process.pid, home.settle(folder)):
        pass


def kill_server(folder: Path) -> None:
    """Kill all its processes at once, as a power cut does."""
    settled = home.settle(folder)
    while postmaster.processes(settled):
        postmaster.kill(settled)


def test_the_first_start_makes_a_database_and_gives_nothing_up_of_durability(folder: Path) -> None:
    with embedded.start(folder) as server:
        assert server.version.startswith("18.")
        assert select(server.dsn, "select current_database()") == "detent"
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert select(server.dsn, f"show {setting}") == "on"
        assert select(server.dsn, "select lower('Ä')") == "ä"


def test_the_server_is_private_and_has_no_port(used: Path) -> None:
    with embedded.start(used) as server:
        assert select(server.dsn, "show listen_addresses") == ""
        socket_folder = Path(str(select(server.dsn, "show unix_socket_directories")))
        for place in (socket_folder, home.settle(used).path, home.settle(used).data):
            assert place.stat().st_mode & 0o077 == 0
    assert not socket_folder.exists()


def test_a_second_process_shares_the_server_and_the_last_one_out_stops_it(used: Path) -> None:
    with User(used) as first, User(used) as second:
        assert first.says() == second.says() == embedded.running(used)
        first.leave()
        assert embedded.running(used)
        second.leave()
        assert embedded.running(used) is None


def test_processes_that_make_the_data_at_the_same_instant_share_one_server(folder: Path) -> None:
    with ExitStack() as stack:
        users = [stack.enter_context(user) for user in several(folder, 4)]
        dsns = {user.says() for user in users}
        assert dsns == {embedded.running(folder)}
        for user in users:
            user.leave()
    assert embedded.running(folder) is None


def test_whoever_starts_while_another_stops_gets_a_server_that_answers(used: Path) -> None:
    def come_and_go(_: int) -> None:
        with embedded.start(used) as server:
            assert select(server.dsn, "select 1") == 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(come_and_go, range(24)))
    assert embedded.running(used) is None


def test_a_process_that_was_killed_does_not_keep_the_server_up(used: Path) -> None:
    with User(used) as killed, User(used) as other:
        killed.says(), other.says()
        killed.kill()
        other.leave()
    assert embedded.running(used) is None


def test_a_server_that_all_its_users_left_by_dying_is_taken_over(used: Path) -> None:
    with User(used) as killed:
        dsn = killed.says()
        killed.kill()
    pid = postmaster_pid(used)
    with embedded.start(used) as server:
        assert server.dsn == dsn
        assert postmaster_pid(used) == pid
    assert embedded.running(used) is None


def test_the_next_start_recovers_after_everything_was_killed(used: Path) -> None:
    with User(used) as user:
        dsn = user.says()
        select(dsn, "create table survivors as select 42 as answer")
        user.kill()
        kill_server(used)
    assert embedded.running(used) is None
    with embedded.start(used) as server:
        assert select(server.dsn, "select answer from survivors") == 42


def test_the_next_start_recovers_after_a_kill_in_the_midst_of_making_the_data(folder: Path) -> None:
    (home.settle(folder).path / "data.new").mkdir()
    with embedded.start(folder) as server:
        assert select(server.dsn, "select 1") == 1


def test_a_stale_pid_that_now_belongs_to_a_stranger_is_left_alone(used: Path) -> None:
    with embedded.start(used):
        pid_file = home.settle(used).data / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    assert embedded.running(used) is None
    with embedded.start(used) as server:
        assert select(server.dsn, "select 1") == 1


def test_a_dead_server_is_started_again_where_it_was(used: Path) -> None:
    with embedded.start(used) as server:
        dsn = server.dsn
        assert not server.ensure_alive()
        kill_postmaster(used)
        assert server.ensure_alive()
        assert server.dsn == dsn
        assert select(dsn, "select 1") == 1
    assert embedded.running(used) is None


def test_an_orphan_of_a_dead_server_does_not_stop_the_next(used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "EVICT_TIMEOUT", 0.1)
    with embedded.start(used) as server, psycopg.connect(server.dsn) as connection:
        orphan = psutil.Process(connection.info.backend_pid)
        orphan.suspend()
        kill_postmaster(used)
        assert server.ensure_alive()
        assert orphan not in postmaster.processes(home.settle(used))
        connection.close()


def test_a_server_whose_socket_was_deleted_is_replaced(used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "EVICT_TIMEOUT", 0.1)
    with embedded.start(used) as server:
        found = postmaster.read_pid_file(home.settle(used))
        assert found
        (found.socket_folder / ".s.PGSQL.5432").unlink()
        assert server.ensure_alive()
        assert postmaster_pid(used) != found.pid
        assert select(server.dsn, "select 1") == 1


def test_who_only_looks_for_a_server_starts_none(used: Path, tmp_path: Path) -> None:
    assert embedded.running(tmp_path / ".detent") is None
    assert not (tmp_path / ".detent").exists()
    assert embedded.running(used) is None
    with embedded.start(used) as server:
        assert embedded.running(used) == server.dsn
    assert embedded.running(used) is None


def test_a_program_that_ends_without_stopping_leaves_all_the_same(used: Path) -> None:
    with User(used, LEAVE_BY_EXIT) as user:
        user.leave()
    assert embedded.running(used) is None


def test_ctrl_c_in_the_terminal_of_one_does_not_reach_the_server(used: Path) -> None:
    with User(used) as starter, User(used) as other:
        starter.says(), other.says()
        assert os.getsid(postmaster_pid(used)) not in {os.getsid(user.pid) for user in (starter, other)}
        starter.interrupt()
        assert embedded.running(used)
        other.leave()


def test_the_server_keeps_no_output_of_its_starter_open(used: Path) -> None:
    with User(used) as user:
        user.says()
        user.kill()  # Would not return while the server held the pipe.
        assert embedded.running(used)
    with embedded.start(used):
        pass


def test_a_forked_child_does_not_stop_the_server_of_its_parent(used: Path) -> None:
    with User(used, FORK_AND_STOP_IN_CHILD) as user:
        assert user.leave() == "True"


def test_a_forked_child_keeps_the_server_when_its_parent_leaves(used: Path) -> None:
    with User(used, FORK_AND_LEAVE_BEFORE_CHILD) as user:
        assert user.says() == "True"
    with embedded.start(used):
        pass


def test_stopping_twice_is_stopping_once(used: Path) -> None:
    first, second = embedded.start(used), embedded.start(used)
    first.stop()
    first.stop()
    assert embedded.running(used)
    second.stop()
    assert embedded.running(used) is None


def test_a_path_too_long_for_a_socket_and_with_odd_letters_will_do(project: Path) -> None:
    folder = project / ("it's a 'long' path\\" * 6) / ".detent"
    with embedded.start(folder) as server:
        assert select(server.dsn, "select 1") == 1
