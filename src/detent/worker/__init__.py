"""The processes that execute runs: a supervisor without user code, and the runners it starts.

May import `sdk` and `protocol`, never the engine: both processes are handed a `Backend`. To wire it (the `cli` does):

- `Supervisor(settings, backend, command, on_event=…)` of `supervisor.py`, in the command's own process: `run()` serves until
  `drain()` or `stop_now()` (`interrupted()` is the one, then the other); `reload(settings)` changes the code.
- `command` starts a child that calls `process.main(connect)`, where `connect(settings)` makes its backend.

Start reading at `runner.py` (lease, execute, complete), then `supervisor.py`.
"""
