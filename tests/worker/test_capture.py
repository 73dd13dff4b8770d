from __future__ import annotations

import contextvars
import logging
import sys
import threading
from typing import cast

import pytest

from detent.sdk import scope as run_scope
from detent.sdk.scope import RunScope
from detent.worker.capture import capturing


class Run:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.fields: list[dict[str, object] | None] = []

    def capture(self, level: str, message: str, fields: dict[str, object] | None = None) -> None:
        self.lines.append((level, message))
        self.fields.append(fields)


def inside(run: Run, code: object) -> None:
    context = contextvars.copy_context()
    context.run(run_scope.enter, cast("RunScope", run))
    context.run(code)  # type: ignore[arg-type]


def test_lines_printed_in_a_run_are_its_log(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run()

    def code() -> None:
        print("one\ntwo")
        print("to stderr", file=sys.stderr)

    with capturing(log_level="info", echo=False):
        inside(run, code)
        print("outside")
    assert run.lines == [("log", "one"), ("log", "two"), ("error", "to stderr")]
    assert capsys.readouterr() == ("outside\n", "")


def test_pieces_of_a_line_are_put_together_for_each_run() -> None:
    first, second = Run(), Run()
    with capturing(log_level="info", echo=False) as capture:
        inside(first, lambda: print("a", end=""))
        inside(second, lambda: print("x", end=""))
        inside(first, lambda: print("b"))
        capture.end(cast("RunScope", second))
    assert (first.lines, second.lines) == ([("log", "ab")], [("log", "x")])


def test_stdlib_logging_is_kept_with_its_level() -> None:
    run = Run()

    def code() -> None:
        logger = logging.getLogger("shop")
        logger.debug("too quiet")
        logger.info("hello %s", "world")
        logger.critical("bad")

    with capturing(log_level="info", echo=False):
        inside(run, code)
    assert run.lines == [("info", "hello world"), ("error", "bad")]


def test_extra_of_stdlib_logging_is_kept_as_fields() -> None:
    run = Run()

    def code() -> None:
        logging.getLogger("shop").info("charged", extra={"order": "o1", "amount": 5})

    with capturing(log_level="info", echo=False):
        inside(run, code)
    assert run.fields == [{"logger": "shop", "order": "o1", "amount": 5}]


def test_threads_that_carry_the_context_are_captured() -> None:
    run = Run()

    def code() -> None:
        thread = threading.Thread(target=contextvars.copy_context().run, args=(print, "from a thread"))
        thread.start()
        thread.join()

    with capturing(log_level="info", echo=False):
        inside(run, code)
    assert run.lines == [("log", "from a thread")]


def test_with_echo_lines_go_to_both(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run()
    with capturing(log_level="info", echo=True):
        inside(run, lambda: print("both"))
    assert (run.lines, capsys.readouterr().out) == ([("log", "both")], "both\n")


def test_without_its_streams_lines_go_where_they_always_went_and_logging_is_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Run()

    def code() -> None:
        print("printed")
        logging.getLogger("app").warning("logged")

    with capturing(log_level="info", echo=False, streams=False):
        inside(run, code)
    assert run.lines == [("warn", "logged")]
    assert capsys.readouterr().out == "printed\n"


def test_the_streams_are_put_back() -> None:
    before = (sys.stdout, sys.stderr, logging.getLogger().level)
    with capturing(log_level="debug", echo=False):
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr, logging.getLogger().level) == before
