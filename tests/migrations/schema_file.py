"""The committed schema, and what the migrations make of it.

`python -m tests.migrations.schema_file` writes it anew.
"""

from __future__ import annotations

from detent.migrations.dump import dump
from detent.migrations.files import FOLDER as MIGRATIONS
from detent.postgres import binaries, embedded
from detent.postgres.embedded import EmbeddedServer
from tests.database import FOLDER, migrate, server_at

SCHEMA_FILE = MIGRATIONS / "schema.sql"


def made_by_migrations(server: EmbeddedServer) -> str:
    """The dump of a database in which all migrations were applied."""
    (newest, *_) = binaries.find()
    with server_at(server.dsn).new_database() as dsn:
        migrate(dsn)
        return dump(dsn, newest.program("pg_dump"))


def main() -> None:
    with embedded.start(FOLDER) as server:
        SCHEMA_FILE.write_text(made_by_migrations(server))


if __name__ == "__main__":
    main()
