"""The database schema: numbered SQL files beside this one, forward only, and what applies and verifies them.

A file `0007_add_run_tags.sql` runs in a transaction of its own, or, with the header `-- transaction: none`, statement
by statement outside one (for `concurrently`). What was applied stands in `detent.schema_migrations`. `schema.sql` is
the sum of the files, generated. Start reading at `migrate`. Imports nothing of detent but `errors`.
"""

from detent.migrations.files import Migration, load
from detent.migrations.migrate import apply, plan, verify

__all__ = ["Migration", "apply", "load", "plan", "verify"]
