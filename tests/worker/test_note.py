from __future__ import annotations

import asyncio
import os

import pytest

from detent.errors import DetentError
from detent.protocol import ids
from detent.worker.note import ASKED, RECORDS, Note, Noted, OnCpu


class Owner:
    def __init__(self, record: int) -> None:
        self.record, self.turns = record, 0


@pytest.fixture
def note() -> Note:
    made, fd = Note.create()
    os.close(fd)
    return made


def noted(task_id: str = "charge", deadline: float | None = None) -> Noted:
    return Noted(run_id=ids.new_run_id(), task_id=task_id, fence=-5, deadline=deadline)


def test_another_process_reads_what_was_noted(note: Note) -> None:
    made, fd = Note.create()
    other = Note(fd)
    run = noted(deadline=12.5)
    record = made.acquire()
    made.describe(record, run)
    made.enter_thread(3, record)
    made.beat()
    assert (other.in_threads(), other.tick) == ([run], 1)


def test_a_task_with_a_long_name_is_noted_as_far_as_it_fits(note: Note) -> None:
    record = note.acquire()
    note.describe(record, noted("ü" * 128))
    note.enter_thread(0, record)
    (run,) = note.in_threads()
    assert run.task_id.startswith("üüü")


def test_records_are_used_again(note: Note) -> None:
    first = note.acquire()
    note.release(first)
    assert note.acquire() == first


def test_a_run_too_many_is_not_noted_but_runs(note: Note) -> None:
    assert 0 not in {note.acquire() for _ in range(RECORDS - 1)}
    none = note.acquire()
    note.describe(none, noted())
    note.enter_thread(0, none)
    assert (none, note.on_cpu()) == (0, [])


async def test_a_coroutine_is_on_the_cpu_during_its_steps_only(note: Note) -> None:
    run, record = noted(), note.acquire()
    note.describe(record, run)
    release: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def steps() -> list[Noted | None]:
        before = note.on_loop()
        await release
        return [before, note.on_loop()]

    task = asyncio.create_task(OnCpu(steps(), Owner(record), note))
    await asyncio.sleep(0)
    between = note.on_loop()
    release.set_result(1)
    assert (await task, between, note.on_loop()) == ([run, run], None, None)


async def test_a_cancelled_coroutine_is_noted_while_it_cleans_up(note: Note) -> None:
    run, record = noted(), note.acquire()
    note.describe(record, run)
    seen: list[Noted | None] = []

    async def cleans() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(note.on_loop())

    task = asyncio.create_task(OnCpu(cleans(), Owner(record), note))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [run]


async def test_an_exit_asked_for_by_a_run_stays_in_the_run(note: Note) -> None:
    async def leaves() -> None:
        raise SystemExit(2)

    with pytest.raises(DetentError, match="cannot end its worker"):
        await asyncio.create_task(OnCpu(leaves(), Owner(0), note))


def test_lease_calls_count_as_unanswered_until_what_they_brought_begins(note: Note) -> None:
    for fence in (5, 6, 7):
        note.ask(fence)
    note.answered(6)
    assert note.unanswered() == (5, 7)


def test_only_the_latest_unanswered_lease_calls_are_remembered(note: Note) -> None:
    for fence in range(1, 2 * ASKED):
        note.ask(fence)
    assert sorted(note.unanswered()) == list(range(ASKED, 2 * ASKED))


def test_runs_that_execute_are_known_though_nobody_is_on_the_cpu(note: Note) -> None:
    runs, records = [noted(), noted(), noted()], [note.acquire() for _ in range(3)]
    for run, record in zip(runs, records, strict=True):
        note.describe(record, run)
    note.pause(records[0])
    note.release(records[1])
    assert note.executing() == [runs[2]]
    note.describe(records[0], runs[0])
    assert note.executing() == [runs[0], runs[2]]
