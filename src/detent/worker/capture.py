"""What a run prints or logs, kept with the run; everything else goes where it always went."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from detent.sdk import scope

_LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warn"), (logging.INFO, "info"))
_LONGEST_PART = 16 * 1024
_OWN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
"""What every record has; the rest was given as `extra=`."""


class RunStream(io.TextIOBase):
    """Stands for `sys.stdout` or `sys.stderr`: lines written inside a run become log lines of it."""

    def __init__(self, real: TextIO, level: str, *, echo: bool) -> None:
        self._real, self._level, self._echo = real, level, echo
        self._parts: dict[int, str] = {}

    def write(self, text: str) -> int:
        run = scope.current()
        if run is None:
            return self._real.write(text)
        if self._echo:
            self._real.write(text)
        *lines, rest = (self._parts.pop(id(run), "") + text).split("\n")
        for line in lines:
            run.capture(self._level, line.rstrip("\r"))
        if len(rest) > _LONGEST_PART:
            run.capture(self._level, rest)
        elif rest:
            self._parts[id(run)] = rest
        return len(text)

    def end(self, run: scope.RunScope) -> None:
        """Log the unfinished line of a run that is over."""
        rest = self._parts.pop(id(run), "") if self._parts else ""
        if rest:
            run.capture(self._level, rest)

    def flush(self) -> None:
        self._real.flush()

    def isatty(self) -> bool:
        return self._real.isatty()

    def fileno(self) -> int:
        return self._real.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute in typeshed
        return self._real.encoding

    @property
    def buffer(self) -> object:
        """The bytes below; what is written there is not captured."""
        return self._real.buffer


class RunHandler(logging.Handler):
    """On the root logger: records of a run become its log lines, `extra` their fields; others, from WARNING on, go to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        run = scope.current()
        if run is not None:
            extra = {name: value for name, value in vars(record).items() if name not in _OWN}
            run.capture(_level_of(record.levelno), self.format(record), {"logger": record.name, **extra})
        elif record.levelno >= logging.WARNING and logging.lastResort is not None:
            logging.lastResort.handle(record)


class Capture:
    """The two streams, to be told of each run's end."""

    def __init__(self, stdout: RunStream, stderr: RunStream) -> None:
        self._stdout, self._stderr = stdout, stderr

    def end(self, run: scope.RunScope) -> None:
        self._stdout.end(run)
        self._stderr.end(run)


@contextmanager
def capturing(*, log_level: str, echo: bool, streams: bool = True) -> Iterator[Capture]:
    """Put the streams and the handler in place; or the handler alone, where what runs print is not theirs to keep."""
    real_out, real_err = sys.stdout, sys.stderr
    stdout, stderr = RunStream(real_out, "log", echo=echo), RunStream(real_err, "error", echo=echo)
    root, handler = logging.getLogger(), RunHandler()
    level = root.level
    if streams:
        sys.stdout, sys.stderr = stdout, stderr
    root.addHandler(handler)
    root.setLevel(_root_level(log_level))
    try:
        yield Capture(stdout, stderr)
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        sys.stdout, sys.stderr = real_out, real_err


def _root_level(log_level: str) -> int:
    # The configured level is of `logger` alone. Loggers of the standard library have levels of their own, and libraries
    # say so much below INFO that it is asked for.
    return logging.DEBUG if log_level == "debug" else logging.INFO


def _level_of(number: int) -> str:
    return next((name for floor, name in _LEVELS if number >= floor), "debug")
