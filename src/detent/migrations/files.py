"""The migrations as files."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
FILE_NAME = re.compile(r"(?P<version>\d{4})_(?P<name>\w+)\.sql")
NO_TRANSACTION = re.compile(r"^-- transaction: none$", re.MULTILINE)
STATEMENT_END = re.compile(r";[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    version: int
    name: str
    sql: str

    def __str__(self) -> str:
        return f"{self.version:04}_{self.name}"

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        return NO_TRANSACTION.search(self.sql) is None

    @property
    def statements(self) -> list[str]:
        """The statements one by one: each ends with a semicolon at the end of a line, and no line within one does."""
        return [statement.strip() for statement in STATEMENT_END.split(self.sql) if statement.strip()]


def load(folder: Path = FOLDER) -> list[Migration]:
    """All migrations in order."""
    named = ((FILE_NAME.fullmatch(path.name), path) for path in sorted(folder.glob("*.sql")))
    return [
        Migration(version=int(match["version"]), name=match["name"], sql=path.read_text(encoding="utf-8"))
        for match, path in named
        if match
    ]
