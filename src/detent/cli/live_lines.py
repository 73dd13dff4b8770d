"""The lines of `detent dev` on a terminal: runs that go on stand at the bottom and move, those that ended scroll away above.

While it is entered, the terminal belongs to it alone: what this process and its runners write to stdout and stderr comes
through a pipe, and is printed between the lines.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, cast

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from detent.cli import lines, printing
from detent.cli.lines import Lines
from detent.worker.telling import EventKind, WorkerEvent

GOING_ON = frozenset({EventKind.STARTED, EventKind.RESUMED, EventKind.WAITING})
STYLES = {
    EventKind.SUCCEEDED: "green",
    EventKind.FAILED: "bold red",
    EventKind.TIMED_OUT: "bold red",
    EventKind.RETRIED: "yellow",
    EventKind.CANCELLED: "yellow",
    EventKind.HANDED_BACK: "yellow",
    EventKind.SUSPECTED: "yellow",
    EventKind.WAITING: "magenta",
}
KIND_STYLES = {"error": "bold red", "warning": "bold yellow", "ready": "bold green"}
MOST_SHOWN = 8
"""Runs that go on, at once."""
MOST_A_SECOND = 20
"""Ended runs that are printed; the others are counted."""
REFRESH_SECONDS = 0.1
_CHUNK = 65_536


class LiveLines(Lines):
    def __init__(self) -> None:
        super().__init__()
        self._going_on: dict[str, tuple[WorkerEvent, float]] = {}
        self._spinner = Spinner("dots")
        self._second, self._printed, self._skipped = 0, 0, 0

    # ---- the terminal ----

    def __enter__(self) -> Self:
        sys.stdout.flush()
        sys.stderr.flush()
        self._saved = os.dup(1), os.dup(2)
        self._terminal = os.fdopen(os.dup(1), "w", buffering=1)
        self._console = Console(file=self._terminal, highlight=False)
        output, into = os.pipe()
        os.dup2(into, 1)
        os.dup2(into, 2)
        os.close(into)
        self._reader = threading.Thread(target=self._pass_on, args=(output,), name="detent-output", daemon=True)
        self._reader.start()
        self._live = Live(
            console=self._console,
            get_renderable=self._bottom,
            refresh_per_second=1 / REFRESH_SECONDS,
            redirect_stdout=False,
            redirect_stderr=False,
            transient=True,
        )
        self._live.start()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        sys.stdout.flush()
        sys.stderr.flush()
        for number, saved in zip((1, 2), self._saved, strict=True):
            os.dup2(saved, number)
            os.close(saved)
        # The runners have ended, so their ends of the pipe are closed; a process that user code left behind may keep one.
        self._reader.join(timeout=0.5)
        self._say_skipped()
        self._live.stop()
        self._terminal.close()

    def _pass_on(self, output: int) -> None:
        rest = b""
        while chunk := os.read(output, _CHUNK):
            *whole, rest = (rest + chunk).split(b"\n")
            if whole:
                self._show(Text.from_ansi(b"\n".join(whole).decode(errors="replace"), style="dim"))
        if rest:
            self._show(Text.from_ansi(rest.decode(errors="replace"), style="dim"))
        os.close(output)

    def _show(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    # ---- what happens ----

    def event(self, event: WorkerEvent) -> None:
        if event.kind is EventKind.RELOADED:
            self.say("reloaded", "new runs get the saved code")
        elif event.run_id and event.kind not in lines.SAID_BY_LOG:
            if event.kind in GOING_ON:
                self._going_on[event.run_id] = event, time.monotonic()
            else:
                self._going_on.pop(event.run_id, None)
                self._print_ended(event)

    def ready(self, seconds: float, database: str, task_ids: Sequence[str], call: str) -> None:
        names = ", ".join(task_ids) or "none"
        self.say("ready", f"in {printing.seconds(seconds)} on {database}; tasks: {names}")
        if call:
            self._show(Text.assemble("\n  ", (call, "bold cyan"), "\n"))

    def say(self, kind: str, sentence: str) -> None:
        self._show(Text.assemble((lines.clock(), "dim"), " ", (f"{kind}:", KIND_STYLES.get(kind, "bold")), f" {sentence}"))

    def _print_ended(self, event: WorkerEvent) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self._say_skipped()
            self._second, self._printed = second, 0
        if self._printed < MOST_A_SECOND:
            self._printed += 1
            self._show(Text.assemble((lines.clock(), "dim"), " ", _line(event)))
        else:
            self._skipped += 1

    def _say_skipped(self) -> None:
        if self._skipped:
            self._show(_more(self._skipped, "ended"))
            self._skipped = 0

    # ---- the bottom ----

    def _bottom(self) -> Group:
        """Return the runs that go on, each with its time; drawn ten times a second, in a thread of its own."""
        shown = sorted(self._going_on.copy().values(), key=_is_waiting)
        spinner = cast("Text", self._spinner.render(time.monotonic()))
        rows = [Text.assemble("       ", spinner, " ", _moving(event, since)) for event, since in shown[:MOST_SHOWN]]
        if len(shown) > MOST_SHOWN:
            rows.append(_more(len(shown) - MOST_SHOWN, "go on"))
        if self._skipped:
            rows.append(_more(self._skipped, "ended"))
        for row in rows:
            row.no_wrap, row.overflow = True, "ellipsis"
        return Group(*rows)


def _is_waiting(going_on: tuple[WorkerEvent, float]) -> bool:
    return going_on[0].kind is EventKind.WAITING


def _moving(event: WorkerEvent, since: float) -> Text:
    passed = event.seconds + time.monotonic() - since
    text = _line(event)
    return text if _is_waiting((event, since)) else Text.assemble(text, f" {printing.seconds(passed):>8}")


def _more(count: int, what: str) -> Text:
    return Text(f"         … and {count:,} more runs {what}", style="dim")


def _line(event: WorkerEvent) -> Text:
    text = Text(lines.run_line(event))
    if style := STYLES.get(event.kind):
        start = lines.RUN_WIDTH + lines.TASK_WIDTH + 4
        text.stylize(style, start, start + lines.STATE_WIDTH)
    return text
