from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from detent.migrations import connection
from tests.cli.conftest import Detent
from tests.cli.project import Project
from tests.database import Server
from tests.nursery import Nursery
from tests.pooler import direct

COMMANDS = [["tasks"], ["runs", "list"], ["trigger", "hello"], ["worker"]]


def fails(detent: Detent, arguments: list[str], sentence: str) -> None:
    done = detent(*arguments)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert sentence in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("arguments", [*COMMANDS, ["migrate"]])
def test_unreachable_server_is_one_clear_error(
    detent: Detent, arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DETENT_DATABASE_URL", f"host={tmp_path} dbname=nobody")
    fails(detent, arguments, "cannot reach PostgreSQL at ")


@pytest.mark.parametrize("arguments", COMMANDS)
def test_schema_that_is_too_old_asks_for_detent_migrate(
    detent: Detent, arguments: list[str], monkeypatch: pytest.MonkeyPatch, empty_dsn: str
) -> None:
    monkeypatch.setenv("DETENT_DATABASE_URL", empty_dsn)
    fails(detent, arguments, "run `detent migrate`")


@pytest.mark.parametrize("arguments", [*COMMANDS, ["migrate"]])
def test_schema_that_is_too_new_asks_for_a_newer_detent(
    detent: Detent, arguments: list[str], monkeypatch: pytest.MonkeyPatch, fresh_dsn: str
) -> None:
    with psycopg.connect(direct(fresh_dsn)) as newer:
        newer.execute("insert into detent.schema_migrations (version, name, checksum) values (9999, 'later', '')")
    monkeypatch.setenv("DETENT_DATABASE_URL", fresh_dsn)
    fails(detent, arguments, "upgrade the detent package")


def test_server_that_is_too_old_says_which_is_needed(at_database: Detent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "OLDEST_SERVER", 99)
    fails(at_database, ["tasks"], "detent needs 99 or newer")


def test_user_without_rights_is_told_what_to_grant(
    detent: Detent, monkeypatch: pytest.MonkeyPatch, empty_dsn: str, server: Server
) -> None:
    role = sql.Identifier("detent_test_nobody")
    with server.admin() as admin:
        admin.execute(sql.SQL("drop role if exists {}").format(role))
        admin.execute(sql.SQL("create role {} login").format(role))
        try:
            monkeypatch.setenv("DETENT_DATABASE_URL", make_conninfo(direct(empty_dsn), user="detent_test_nobody"))
            fails(detent, ["migrate"], 'user "detent_test_nobody" lacks rights')
        finally:
            admin.execute(sql.SQL("drop role {}").format(role))


def test_worker_without_a_database_points_to_dev(detent: Detent) -> None:
    fails(detent, ["worker"], "`detent worker` needs DETENT_DATABASE_URL")


def test_commands_find_the_embedded_database_of_the_project_around_them(nursery: Nursery, project: Path) -> None:
    shop = Project(nursery, project)
    assert shop.detent("init").returncode == 0
    done = shop.detent("trigger", "hello", "--payload", '{"name": "Ada"}', folder="tasks")
    assert done.returncode == 0, done.stderr
    assert [run["task_id"] for run in shop.json("runs", "list")] == ["hello"]
