"""Log lines: kept with the run inside one, the standard library's outside."""

from __future__ import annotations

import logging

import pytest

from detent import logger
from tests.sdk.fake_run import FakeRun


async def test_every_level_reaches_the_run(run: FakeRun) -> None:
    logger.debug("a")
    logger.log("b", n=1)
    logger.info("c")
    logger.warn("d")
    logger.warning("e")
    logger.error("f", message="a field of that name", level=5)

    assert run.lines == [
        ("debug", "a", None),
        ("info", "b", {"n": 1}),
        ("info", "c", None),
        ("warn", "d", None),
        ("warn", "e", None),
        ("error", "f", {"message": "a field of that name", "level": 5}),
    ]


async def test_exception_carries_the_traceback(run: FakeRun) -> None:
    try:
        raise ValueError("boom")
    except ValueError:
        logger.exception("it failed", order="o1")

    ((level, message, fields),) = run.lines
    assert (level, message) == ("error", "it failed")
    assert fields is not None
    assert fields["order"] == "o1"
    assert "ValueError: boom" in str(fields["traceback"])


async def test_span_logs_how_long_it_took(run: FakeRun) -> None:
    with logger.trace("resize", image="a.png") as span:
        span.set(width=7)
    async with logger.trace("upload"):
        pass

    assert [(level, message) for level, message, _ in run.lines] == [("info", "resize"), ("info", "upload")]
    fields = run.lines[0][2] or {}
    assert (fields["image"], fields["width"]) == ("a.png", 7)
    assert float(str(fields["duration_ms"])) >= 0


async def test_span_of_a_failure_says_so_and_lets_it_pass(run: FakeRun) -> None:
    with pytest.raises(ValueError, match="boom"), logger.trace("resize"):
        raise ValueError("boom")

    level, _, fields = run.lines[0]
    assert level == "error"
    assert (fields or {})["error"] == "ValueError: boom"


def test_outside_a_run_the_standard_logger_is_used(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "detent.task"):
        logger.warning("low on disk", free="5 %")

    (record,) = caplog.records
    assert (record.name, record.levelname, record.getMessage()) == ("detent.task", "WARNING", "low on disk free='5 %'")
