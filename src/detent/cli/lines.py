"""What a serving command says as it goes: one line for each thing that befalls a run, or the same as JSON."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from detent.cli import printing
from detent.worker.telling import EventKind, WorkerEvent

WORDS = {
    EventKind.STARTED: "executing",
    EventKind.RESUMED: "executing",
    EventKind.SUCCEEDED: "completed",
    EventKind.RETRIED: "retrying",
    EventKind.TIMED_OUT: "timed out",
    EventKind.HANDED_BACK: "handed back",
}
"""What a state is called where its own name is not the word for it."""
SAID_BY_LOG = frozenset({EventKind.RUNNER_DIED, EventKind.RUNNER_KILLED, EventKind.BLOCKING, EventKind.DATABASE_AWAY})
"""The worker logs a sentence on these."""
RUN_WIDTH, TASK_WIDTH, STATE_WIDTH = 30, 20, 11
_SAME_SECONDS = 1.0


class _LogHandler(logging.Handler):
    """Says what the worker logs, the same sentence once a second."""

    def __init__(self, lines: Lines) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines
        self._last = ("", 0.0)

    def emit(self, record: logging.LogRecord) -> None:
        sentence, now = self.format(record), time.monotonic()
        if self._last[0] != sentence or now - self._last[1] > _SAME_SECONDS:
            self._last = sentence, now
            self._lines.say("error" if record.levelno >= logging.ERROR else "warning", sentence)


class Lines:
    """Where a serving command says what happens: lines of text. Entered, it also says what the worker logs."""

    def __init__(self) -> None:
        self._handler = _LogHandler(self)

    def __enter__(self) -> Self:
        logging.getLogger("detent").addHandler(self._handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        logging.getLogger("detent").removeHandler(self._handler)

    def event(self, event: WorkerEvent) -> None:
        if event.run_id and event.kind not in SAID_BY_LOG:
            self._print(f"{clock()} {run_line(event)}")
        elif event.kind is EventKind.RELOADED:
            self.say("reloaded", "new runs get the saved code")

    def ready(self, seconds: float, database: str, task_ids: Sequence[str], call: str) -> None:
        names = ", ".join(task_ids) or "none"
        self.say("ready", f"in {printing.seconds(seconds)} on {database}; tasks: {names}")
        if call:
            self._print(f"\n  {call}\n")

    def say(self, kind: str, sentence: str) -> None:
        self._print(f"{clock()} {kind}: {sentence}")

    def signal(self, count: int) -> None:
        self.say("stopping", stopping(count))

    def _print(self, text: str) -> None:
        try:
            print(text, flush=True)
        except BrokenPipeError:
            printing.mute()  # a worker goes on without a reader


class JsonLines(Lines):
    """The same as JSON, an object a line."""

    def event(self, event: WorkerEvent) -> None:
        self._write(asdict(event))

    def ready(self, seconds: float, database: str, task_ids: Sequence[str], call: str) -> None:
        facts = {"kind": "ready", "seconds": round(seconds, 3), "database": database, "task_ids": list(task_ids)}
        self._write(facts)

    def say(self, kind: str, sentence: str) -> None:
        self._write({"kind": kind, "detail": sentence})

    def _write(self, facts: dict[str, object]) -> None:
        self._print(printing.json_line({"at": datetime.now(UTC)} | facts))


def clock() -> str:
    return datetime.now().strftime("%H:%M:%S")  # noqa: DTZ005 - the user's own time, for the user


def run_line(event: WorkerEvent) -> str:
    """Return what befell a run, in columns.

    >>> run_line(WorkerEvent(kind=EventKind.SUCCEEDED, run_id="run_1", task_id="hello", attempt=1, seconds=0.25)).split()
    ['run_1', 'hello', 'completed', 'attempt', '1', '250', 'ms']
    """
    word = WORDS.get(event.kind, event.kind.value)
    columns = f"{event.run_id:<{RUN_WIDTH}}  {event.task_id:<{TASK_WIDTH}}  {word:<{STATE_WIDTH}}"
    took = "" if event.kind is EventKind.STARTED else printing.seconds(event.seconds)
    attempt = f"attempt {event.attempt}" if event.attempt else ""
    return f"{columns}  {attempt}  {took:>8}  {first_line(event.detail)}".rstrip()


def first_line(text: str) -> str:
    return text.partition("\n")[0]


def stopping(count: int) -> str:
    """Return what is done on the first signal, and on those after it."""
    if count > 1:
        return "handing everything back at once"
    return "runs that execute may end, the rest is handed back; once more stops at once"
