"""`logger`: lines that are kept with the run. Outside a run they go to the standard library's logger `detent.task`."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from detent.sdk import scope as run_scope

_STANDARD_LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40}


class Logger:
    """Log lines with fields. Fields are anything that can become JSON.

    Example::

        logger.info("charged", order=order.id, amount=order.amount)
        with logger.trace("resize"):
            resize(image)
    """

    def debug(self, message: str, /, **fields: object) -> None:
        _write("debug", message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        _write("info", message, fields)

    def log(self, message: str, /, **fields: object) -> None:
        """The same as `info`."""
        _write("info", message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        _write("warn", message, fields)

    def warn(self, message: str, /, **fields: object) -> None:
        """The same as `warning`."""
        _write("warn", message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        _write("error", message, fields)

    def exception(self, message: str, /, **fields: object) -> None:
        """Log an error with the traceback of the exception that is being handled."""
        from traceback import format_exc

        _write("error", message, {**fields, "traceback": format_exc()})

    def trace(self, name: str, /, **fields: object) -> Span:
        """Return a span: as a context manager, also with `async with`, it logs its name and how long it took.

        With `telemetry` in the config it is exported, too: *fields* are its attributes, and spans of libraries nest in it.
        """
        return Span(name, fields)


class Span:
    """A named stretch of a run. `set` adds fields to the line that is logged at its end, and attributes to what is exported."""

    def __init__(self, name: str, fields: dict[str, object]) -> None:
        self.name, self._fields = name, fields
        self._began = 0.0
        self._open: run_scope.OpenSpan | None = None

    def set(self, **fields: object) -> None:
        self._fields.update(fields)
        if self._open is not None:
            self._open.set(fields)

    def __enter__(self) -> Self:
        present = run_scope.current()
        self._open = None if present is None else present.open_span(self.name, self._fields)
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ended = {**self._fields, "duration_ms": round((time.perf_counter() - self._began) * 1000, 3)}
        if error is None:
            _write("info", self.name, ended)
        else:
            _write("error", self.name, {**ended, "error": f"{type(error).__name__}: {error}"})
        if self._open is not None:
            self._open.end(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


def _write(level: str, message: str, fields: dict[str, object]) -> None:
    present = run_scope.current()
    if present is not None:
        present.log(level, message, fields or None)
        return
    import logging

    text = " ".join([message, *(f"{name}={value!r}" for name, value in fields.items())])
    logging.getLogger("detent.task").log(_STANDARD_LEVELS[level], "%s", text)


logger = Logger()
