"""Migrations as files."""

from __future__ import annotations

from pathlib import Path

from detent.migrations import Migration, load


def test_the_versions_of_the_migrations_count_up_from_one() -> None:
    versions = [migration.version for migration in load()]
    assert versions == list(range(1, len(versions) + 1))


def test_every_migration_opens_with_a_reason() -> None:
    assert all(migration.sql.startswith("-- ") for migration in load())


def test_files_that_are_not_numbered_are_no_migrations(tmp_path: Path) -> None:
    for name in ("0002_second.sql", "0001_first.sql", "schema.sql", "0003_notes.txt"):
        (tmp_path / name).write_text("select 1;")
    assert [str(migration) for migration in load(tmp_path)] == ["0001_first", "0002_second"]


def test_a_header_takes_a_migration_out_of_its_transaction() -> None:
    sql = "-- Reason: speed.\n-- transaction: none\ndrop index if exists a;\ncreate index\n  concurrently a on t (b);\n"
    migration = Migration(version=1, name="add_index", sql=sql)
    assert not migration.in_transaction
    assert [statement.splitlines()[-1] for statement in migration.statements] == [
        "drop index if exists a",
        "  concurrently a on t (b)",
    ]
