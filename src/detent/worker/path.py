"""Where in a run's code an operation is asked for: its asyncio task, thread or step, and its number there.

    main/3                   the fourth operation of the run's own function
    main/fetch#1             its second step named "fetch"
    main/fetch#1/0           the first operation inside that step's body
    main/child~2/0           the first operation of the third task that runs a coroutine `child`

Tasks are counted by their parent and the name of their coroutine, so those that a library starts do not shift ours.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

ROOT = "main/"
HOOKS = "hooks/"
"""Where hooks are called that belong to no operation."""


class Path:
    """One line of execution. `asked` counts its operations; `lines` its log lines since, `updates` those of metadata, `spans`."""

    __slots__ = ("_children", "_operations", "asked", "lines", "spans", "text", "updates")

    def __init__(self, text: str = ROOT) -> None:
        self.text = text
        self.asked = self.lines = self.updates = self.spans = 0
        self._operations = 0
        self._children: Counter[str] | None = None

    def operation(self, mark: str = "") -> str:
        """Return the id of the operation that is asked for now."""
        operation = self.peek(mark)
        self._operations += 1
        return operation

    def peek(self, mark: str = "") -> str:
        return f"{self.text}{self._operations}{mark}"

    def step(self, name: str) -> str:
        """Return the id of a step."""
        return f"{self.text}{name}#{self._count('#' + name)}"

    def child(self, name: str) -> Path:
        """Return the path of a task or thread that is started here."""
        return Path(f"{self.text}{name.replace('/', '.')}~{self._count('~' + name)}/")

    @property
    def place(self) -> str:
        """Where a log line is written: after so many operations of this path."""
        return f"{self.text}{self.asked}"

    def _count(self, name: str) -> int:
        if self._children is None:
            self._children = Counter()
        number = self._children[name]
        self._children[name] += 1
        return number


def parent_of(operation: str) -> str:
    """Return the path that asked for an operation.

    >>> parent_of("main/child~2/0")
    'main/child~2/'
    """
    return operation[: operation.rfind("/") + 1]


class Line:
    """Something that executes along a path: an asyncio task or a thread, with the blocking calls in which it stands."""

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        self.path = path
        """Another one inside of a step."""


class HasLine:
    """A coroutine that knows its line."""

    __slots__ = ()
    line: Line | None


class _Thread(threading.local):
    line: Line | None = None


_thread = _Thread()


def here() -> Line | None:
    """Return what executes the calling code, where that belongs to a run."""
    if asyncio._get_running_loop() is None:
        return _thread.line
    task = asyncio.current_task()
    coroutine = None if task is None else task.get_coro()
    return coroutine.line if isinstance(coroutine, HasLine) else None


def enter_thread(line: Line | None) -> None:
    """Say along which line the present thread executes from here on."""
    _thread.line = line
