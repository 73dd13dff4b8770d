from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from detent.protocol import ids
from detent.protocol.backend import WorkerBackend
from detent.protocol.fence import Holder
from detent.protocol.logs import LogLine
from detent.worker import log_lines
from detent.worker.log_lines import LogLines


class Writer:
    def __init__(self) -> None:
        self.holder = Holder(run_id=ids.new_run_id(), fence=1)
        self.attempt, self.is_dropped, self.last_line = 1, False, 0


class Store:
    def __init__(self) -> None:
        self.lines: list[LogLine] = []

    async def append_logs(self, lines: Sequence[LogLine]) -> None:
        self.lines += lines


def add(
    lines: LogLines, writer: Writer, message: str, fields: dict[str, object] | None = None, *, number: int = 0
) -> None:
    lines.add(writer, "info", message, fields, place="main/0", number=number)


def lines_of(store: Store) -> LogLines:
    return LogLines(cast("WorkerBackend", store), asyncio.get_running_loop())


async def test_lines_arrive_in_order_and_numbered() -> None:
    store, writer = Store(), Writer()
    lines = lines_of(store)
    for number, text in enumerate(("a", "b", "c")):
        add(lines, writer, text, number=number)
    assert lines.has_unsent(writer)
    await lines.flushed(writer.last_line)
    assert not lines.has_unsent(writer)
    assert [(line.place, line.number, line.message) for line in store.lines] == [
        ("main/0", 0, "a"),
        ("main/0", 1, "b"),
        ("main/0", 2, "c"),
    ]


async def test_what_cannot_be_stored_is_made_storable() -> None:
    store, writer = Store(), Writer()
    lines = lines_of(store)
    add(lines, writer, "nul \x00 and \ud800", {"when": object(), "x": float("nan")})
    add(lines, writer, "x" * 100_000)
    await lines.flushed_all()
    first, second = store.lines
    assert first.message == "nul  and ?"
    assert first.fields is not None
    assert '"x":"nan"' in first.fields
    assert second.message.endswith("more characters)")
    assert len(second.message) < 70_000


async def test_memory_is_bounded_and_the_oldest_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "MOST_LINES", 10)
    store, writer = Store(), Writer()
    lines = lines_of(store)
    for number in range(50):
        add(lines, writer, str(number), number=number)
    await lines.flushed_all()
    assert len(store.lines) <= 11
    assert store.lines[-1].message == "49"
    assert any("40 lines were dropped" in line.message for line in store.lines)


async def test_lines_of_a_copy_that_was_dropped_are_not_sent() -> None:
    store, writer = Store(), Writer()
    lines = lines_of(store)
    add(lines, writer, "from a stale copy")
    writer.is_dropped = True
    await lines.flushed_all()
    assert store.lines == []
