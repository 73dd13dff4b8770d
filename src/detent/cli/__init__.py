"""The `detent` command: one file a command, wiring and text, no rules.

May import everything below it; it is the one place that knows both the worker and the engine, and joins them. A command's
module is imported when that command is asked for, and what is heavy (Rich, the driver, the engine) inside its functions.
Start reading at `main.py`, then `serving.py` (what `dev` and `worker` share).
"""
