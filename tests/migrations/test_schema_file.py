"""The committed schema is the sum of the migrations."""

from __future__ import annotations

from detent.postgres.embedded import EmbeddedServer
from tests.migrations.schema_file import SCHEMA_FILE, made_by_migrations


def test_schema_file_is_what_the_migrations_make(embedded_server: EmbeddedServer) -> None:
    assert SCHEMA_FILE.read_text() == made_by_migrations(embedded_server), "run python -m tests.migrations.schema_file"
