"""Who is on the CPU: a few bytes that a runner and its supervisor share, and that outlive the runner.

Each run in memory has a record (which run, its fence, its deadline); the loop and each thread have a cell that holds the number
of the record they are executing, 0 for none. When the process dies, the runs in the cells are the suspects; when the loop
stands still, they are to blame. A cell costs one store, so every step of every coroutine can afford it.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypeVar, cast

from detent.errors import DetentError
from detent.protocol.ids import RunId
from detent.worker.path import HasLine, Line

THREADS = 2047
RECORDS = 65_536
ASKED = 16
"""Lease calls without an answer that are remembered; older ones are forgotten."""
_TICK, _LOOP, _USED, _ASKED = 0, 1, 2, 3
_THREAD = _ASKED + ASKED
_CELLS = _THREAD + THREADS
_RECORD = struct.Struct("<32sqd80s?")
_RECORDS_AT = _CELLS * 8
_SIZE = _RECORDS_AT + RECORDS * _RECORD.size
_NO_DEADLINE = 0.0

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A run as the note has it. `deadline` is on `time.monotonic`, which processes of one machine share; None is never."""

    run_id: RunId
    task_id: str
    fence: int
    deadline: float | None


class Note:
    """The shared bytes. The file is sparse: records that were never used take no memory."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, _SIZE)
        self._view = memoryview(self._map)
        self.cells = self._view[: _CELLS * 8].cast("Q")
        self._free: list[int] = []
        self._used = self._asked = 0
        self.beat_at = time.monotonic()
        """When the loop of this process last turned."""

    @classmethod
    def create(cls) -> tuple[Note, int]:
        """Return a new note and the file descriptor through which a child finds it."""
        with tempfile.TemporaryFile(prefix="detent-note-") as file:
            file.truncate(_SIZE)
            fd = os.dup(file.fileno())
        return cls(fd), fd

    def close(self) -> None:
        self.cells.release()
        self._view.release()
        self._map.close()

    # ---- the runner writes ----

    def acquire(self) -> int:
        """Return a free record's number, 0 when there is none: such a run is not noted."""
        if self._free:
            return self._free.pop()
        if self._used >= RECORDS - 1:
            return 0
        self._used = self.cells[_USED] = self._used + 1
        return self._used

    def release(self, record: int) -> None:
        if record:
            self.pause(record)
            self._free.append(record)

    def describe(self, record: int, noted: Noted) -> None:
        if record:
            deadline = _NO_DEADLINE if noted.deadline is None else noted.deadline
            place = _RECORDS_AT + record * _RECORD.size
            _RECORD.pack_into(
                self._map, place, noted.run_id.encode(), noted.fence, deadline, noted.task_id.encode(), True
            )

    def pause(self, record: int) -> None:
        """The run of this record executes no more, until it is described again."""
        if record:
            self._map[_RECORDS_AT + (record + 1) * _RECORD.size - 1] = 0

    def beat(self) -> None:
        """Show that the loop turns."""
        self.cells[_TICK] += 1
        self.beat_at = time.monotonic()

    def enter_thread(self, thread: int, record: int) -> None:
        if thread < THREADS:
            self.cells[_THREAD + thread] = record

    def ask(self, fence: int) -> None:
        """A lease call under this fence is about to be made."""
        self.cells[_ASKED + self._asked % ASKED] = fence
        self._asked += 1

    def answered(self, fence: int) -> None:
        """What this lease call brought is about to begin."""
        for cell in range(_ASKED, _ASKED + ASKED):
            if self.cells[cell] == fence:
                self.cells[cell] = 0

    # ---- the supervisor reads ----

    @property
    def tick(self) -> int:
        return self.cells[_TICK]

    def on_loop(self) -> Noted | None:
        """The run whose step the event loop is executing."""
        return self._read(self.cells[_LOOP])

    def in_threads(self) -> list[Noted]:
        """The runs that threads are executing."""
        noted = (self._read(record) for record in self.cells[_THREAD:] if record)
        return [run for run in noted if run is not None]

    def on_cpu(self) -> list[Noted]:
        first = self.on_loop()
        return self.in_threads() if first is None else [first, *self.in_threads()]

    def unanswered(self) -> tuple[int, ...]:
        """The fences of lease calls of which nothing has begun."""
        return tuple(fence for fence in self.cells[_ASKED : _ASKED + ASKED] if fence)

    def executing(self) -> list[Noted]:
        """All runs that execute, on the CPU or not."""
        noted = (self._read(record) for record in range(1, self.cells[_USED] + 1) if self._is_executing(record))
        return [run for run in noted if run is not None]

    def _is_executing(self, record: int) -> bool:
        return bool(self._map[_RECORDS_AT + (record + 1) * _RECORD.size - 1])

    def _read(self, record: int) -> Noted | None:
        if not 0 < record < RECORDS:
            return None
        run_id, fence, deadline, task_id, _ = _RECORD.unpack_from(self._map, _RECORDS_AT + record * _RECORD.size)
        return Noted(
            run_id=RunId(run_id.rstrip(b"\0").decode()),
            task_id=task_id.rstrip(b"\0").decode(errors="replace"),
            fence=fence,
            deadline=None if deadline == _NO_DEADLINE else deadline,
        )


class Owner(Protocol):
    """Something that owns a record now, or 0 when it has none any more. `turns` counts the steps of its coroutines."""

    turns: int

    @property
    def record(self) -> int: ...


class OnCpu(Coroutine[object, object, T_co], HasLine):
    """Drives a coroutine of a run along its line, and notes the run during each of its steps."""

    __slots__ = ("_cells", "_coroutine", "_owner", "_send", "line")

    def __init__(
        self, coroutine: Coroutine[object, object, T_co], owner: Owner, note: Note, line: Line | None = None
    ) -> None:
        self._coroutine, self._owner, self._cells, self.line = coroutine, owner, note.cells, line
        self._send = coroutine.send

    def send(self, value: object) -> object:
        owner = self._owner
        self._cells[1] = owner.record
        owner.turns += 1
        try:
            return self._send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise _left_alone(error) from error
        finally:
            self._cells[1] = 0

    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> object:
        self._cells[1] = self._owner.record
        self._owner.turns += 1
        try:
            return self._coroutine.throw(cast("BaseException", typ))
        except (SystemExit, KeyboardInterrupt) as error:
            raise _left_alone(error) from error
        finally:
            self._cells[1] = 0

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[object, object, T_co]:
        return self._coroutine.__await__()

    @property
    def cr_code(self) -> object:
        """What asyncio's debug text of a task asks for."""
        return getattr(self._coroutine, "cr_code", None)


def _left_alone(error: BaseException) -> DetentError:
    """What takes the place of an exception that asyncio would let end the process, with all the other runs in it."""
    return DetentError(f"{error!r} was raised in a run; a run cannot end its worker")
