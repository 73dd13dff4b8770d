"""What users import: tasks, triggers, waits, runs, config. `detent` re-exports the public names.

May import `protocol`, `duration`, `errors`, and (late, in `client`) `postgres` and the engine behind `protocol.Backend`.
Loads neither pydantic nor a driver before they are used. Start reading at `task.py`, then `target.py` (where a trigger goes).
"""
