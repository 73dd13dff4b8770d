"""Judging runners by the note they share, with the time given by hand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import cast

import pytest

from detent.protocol import ids
from detent.worker.child import Child, Watched
from detent.worker.note import Note, Noted
from detent.worker.reaper import LEASE
from detent.worker.vigil import IGNORED, MOST_CANCELLED, Vigil


class Runner:
    """What a vigil looks at."""

    def __init__(self) -> None:
        self.note, fd = Note.create()
        os.close(fd)
        self.watched, self.pid, self.stopped = Watched(), 1, False

    def is_stopped(self) -> bool:
        return self.stopped

    def executes(self, task_id: str, *, deadline: float | None = None, thread: int | None = None) -> str:
        record = self.note.acquire()
        run = Noted(run_id=ids.new_run_id(), task_id=task_id, fence=1, deadline=deadline)
        self.note.describe(record, run)
        if thread is None:
            self.note.cells[1] = record
        else:
            self.note.enter_thread(thread, record)
        return run.run_id


class Scene:
    def __init__(self) -> None:
        self.runner = Runner()
        self.killed: list[str] = []
        self.timed_out: list[str] = []
        self.blocking: list[tuple[str, float]] = []
        self._vigil = Vigil(kill=self._kill, time_out=self._time_out, blocking=self._block)

    def look(self, start: float, end: float, *, turning: bool = False) -> None:
        """Look every quarter of a second."""
        now = start
        while now <= end:
            if turning:
                self.runner.note.beat()
            self._vigil.look(now, [cast("Child", self.runner)])
            now += 0.25

    def cancel(self, now: float, *run_ids: str) -> None:
        self._vigil.cancel(now, run_ids)

    def _kill(self, child: Child, why: str) -> None:
        self.killed.append(why)

    def _time_out(self, child: Child, overdue: Sequence[Noted]) -> None:
        self.timed_out += [run.task_id for run in overdue]

    def _block(self, child: Child, noted: Sequence[Noted], seconds: float) -> None:
        self.blocking += [(run.task_id, seconds) for run in noted]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_loop_that_turns_is_left_alone(scene: Scene) -> None:
    scene.runner.executes("busy", deadline=1.0)
    scene.look(0, 60, turning=True)
    assert (scene.killed, scene.timed_out, scene.blocking) == ([], [], [])


def test_who_keeps_the_loop_is_named_after_one_second_and_at_each_doubling(scene: Scene) -> None:
    scene.runner.executes("greedy")
    scene.look(0, 9)
    assert scene.blocking == [("greedy", 1.0), ("greedy", 2.0), ("greedy", 4.0), ("greedy", 8.0)]
    assert scene.killed == []


def test_a_run_that_keeps_the_loop_beyond_its_time_is_ended_once(scene: Scene) -> None:
    scene.runner.executes("greedy", deadline=2.0)
    scene.look(0, 2)
    assert scene.timed_out == []
    scene.look(2.25, 5)
    assert scene.timed_out == ["greedy"]


def test_a_thread_that_holds_the_interpreter_beyond_its_time_is_ended(scene: Scene) -> None:
    scene.runner.executes("holding", deadline=2.0, thread=0)
    scene.look(0, 5)
    assert scene.timed_out == ["holding"]


def test_a_cancelled_run_may_keep_the_loop_for_a_while_only(scene: Scene) -> None:
    scene.cancel(10.0, scene.runner.executes("greedy"))
    scene.look(0, 9.75, turning=True)
    scene.look(10, 10 + IGNORED)
    assert scene.killed == []
    scene.look(10 + IGNORED, 12 + IGNORED)
    assert scene.killed


def test_a_run_that_is_cancelled_while_it_keeps_the_loop_gets_as_long_from_there(scene: Scene) -> None:
    run_id = scene.runner.executes("greedy")
    scene.look(0, 20)
    scene.cancel(20.0, run_id)
    scene.look(20, 20 + IGNORED)
    assert scene.killed == []
    scene.look(20 + IGNORED, 21 + IGNORED)
    assert scene.killed


def test_a_cancelled_run_is_not_blamed_for_another_that_keeps_the_loop(scene: Scene) -> None:
    scene.cancel(0.0, scene.runner.executes("thread", thread=0))
    scene.runner.executes("greedy")
    scene.look(0, 20)
    assert scene.killed == []


def test_the_oldest_of_very_many_cancels_are_forgotten(scene: Scene) -> None:
    run_id = scene.runner.executes("greedy")
    scene.cancel(0.0, run_id)
    scene.cancel(1.0, *map(str, range(MOST_CANCELLED)))
    scene.look(0, 20)
    assert scene.killed == []


def test_a_thread_is_not_blamed_for_a_run_on_the_loop(scene: Scene) -> None:
    scene.runner.executes("overdue", deadline=2.0, thread=0)
    scene.runner.executes("greedy")
    scene.look(0, 5)
    assert scene.timed_out == []


def test_a_runner_that_stays_stopped_for_a_lease_is_killed(scene: Scene) -> None:
    scene.runner.stopped = True
    scene.look(0, LEASE)
    assert scene.killed == []
    scene.look(LEASE + 0.25, LEASE + 2)
    assert scene.killed


def test_a_supervisor_that_was_stopped_itself_judges_nobody(scene: Scene) -> None:
    scene.runner.executes("patient", deadline=5.0)
    scene.look(0, 1, turning=True)
    scene.look(1000, 1000)
    assert (scene.killed, scene.timed_out, scene.blocking) == ([], [], [])
