"""Write a database's schema as SQL that depends on nothing but the schema: `schema.sql` is that of all migrations.

By hand: `python -m detent.migrations.dump "$DATABASE_URL" path/to/pg_dump`.
"""

from __future__ import annotations

import re
import subprocess
import sys

BLOCK_COMMENT = re.compile(r"^--\n(-- .*\n)+--\n+", re.MULTILINE)
# Versions, random tokens and settings of the session that would read it.
NOISE = re.compile(r"^(-- Dumped .*|\\(un)?restrict .*|SET .*;|SELECT pg_catalog\.set_config.*;)\n", re.MULTILINE)
BLANK_LINES = re.compile(r"\n{3,}")
OPTIONS = ("--schema-only", "--no-owner", "--no-privileges", "--schema=detent")


def dump(conninfo: str, pg_dump: str = "pg_dump") -> str:
    """The schema of `detent` in a database, by the program `pg_dump` of the server's version or newer."""
    done = subprocess.run([pg_dump, *OPTIONS, conninfo], check=True, capture_output=True, text=True)
    return normalise(done.stdout)


def normalise(text: str) -> str:
    bare = NOISE.sub("", BLOCK_COMMENT.sub("", text))
    return BLANK_LINES.sub("\n\n", bare).strip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(dump(*sys.argv[1:]))
