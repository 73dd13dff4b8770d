"""Threads that execute tasks written as plain `def`. They are daemons: one that does not end never keeps the process alive."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from detent.sdk import scope
from detent.worker import path
from detent.worker.note import Note

P = ParamSpec("P")
T = TypeVar("T")

_IDLE_KEPT = 32


class _Thread:
    def __init__(self, pool: Threads, number: int) -> None:
        self._pool, self.number = pool, number
        self._job: Callable[[], None] | None = None
        self._has_job = threading.Semaphore(0)
        threading.Thread(target=self._serve, name=f"detent-{number}", daemon=True).start()

    def do(self, job: Callable[[], None] | None) -> None:
        """Execute *job* next; None ends the thread."""
        self._job = job
        self._has_job.release()

    def _serve(self) -> None:
        while True:
            self._has_job.acquire()
            job, self._job = self._job, None
            if job is None:
                return
            job()
            del job
            if not self._pool.take_back(self):
                return


class Threads:
    """Grows with what is asked of it: the runner's room bounds the runs, and one that waits blocks its thread meanwhile."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._idle: deque[_Thread] = deque()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._free_numbers: list[int] = []

    def start(self, work: Callable[[], T], record: int, began: Callable[[int], None]) -> Future[T]:
        """Call *work* in a thread, noted as *record*; *began* is told the thread's number first."""
        outcome: Future[T] = Future()
        # Who awaits it may be cancelled; the work goes on.
        outcome.set_running_or_notify_cancel()
        thread = self._thread()
        began(thread.number)

        def job() -> None:
            self._note.enter_thread(thread.number, record)
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - handed to the awaiting attempt
                self._note.enter_thread(thread.number, 0)
                outcome.set_exception(_carriable(error))
            else:
                self._note.enter_thread(thread.number, 0)
                outcome.set_result(result)

        thread.do(job)
        return outcome

    def take_back(self, thread: _Thread) -> bool:
        """Keep a thread that is done; False lets it end."""
        with self._lock:
            if len(self._idle) < _IDLE_KEPT:
                self._idle.append(thread)
                return True
            self._free_numbers.append(thread.number)
            return False

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, deque()
        for thread in idle:
            thread.do(None)

    def _thread(self) -> _Thread:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Thread(self, self.new_number())

    def new_number(self) -> int:
        """Return the number of a cell of the note that no other thread has."""
        with self._lock:
            return self._free_numbers.pop() if self._free_numbers else next(self._numbers)


class NotedExecutor(ThreadPoolExecutor):
    """The loop's own executor (`asyncio.to_thread`): what it does for a run is noted, too."""

    def __init__(self, note: Note, threads: Threads) -> None:
        super().__init__(thread_name_prefix="detent-to-thread")
        self._note, self._pool = note, threads
        self._local = threading.local()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        record: int = getattr(scope.current(), "record", 0)
        starter = path.here() if record else None
        line = None if starter is None else path.Line(starter.path.child("thread"))

        def work() -> T:
            self._note.enter_thread(self._number(), record)
            path.enter_thread(line)
            try:
                return fn(*args, **kwargs)
            finally:
                path.enter_thread(None)
                self._note.enter_thread(self._number(), 0)

        return super().submit(work) if record else super().submit(fn, *args, **kwargs)

    def _number(self) -> int:
        number: int | None = getattr(self._local, "number", None)
        if number is None:
            number = self._local.number = self._pool.new_number()
        return number


def _carriable(error: BaseException) -> BaseException:
    """Return *error*, or for `StopIteration`, which no future can hold, what Python makes of it in a coroutine."""
    if not isinstance(error, StopIteration):
        return error
    raised = RuntimeError("the task raised StopIteration")
    raised.__cause__ = error
    return raised
