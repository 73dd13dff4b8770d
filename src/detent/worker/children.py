"""The runners that a supervisor has started and not buried yet."""

from __future__ import annotations

from collections.abc import Iterator

from detent.protocol.ids import SessionId
from detent.worker.child import Child


class Children:
    """Tells which runners there are to wake, to renew for, to watch: those that drain or are about to end are among them, too."""

    def __init__(self) -> None:
        self._all: list[Child] = []
        self.generation = 0
        """Of the code that is served. Runners of a later one are being tried, those of earlier ones drain."""

    def __iter__(self) -> Iterator[Child]:
        # Whoever goes through them may have to wait, and others come and go meanwhile.
        return iter(tuple(self._all))

    def __len__(self) -> int:
        return len(self._all)

    def add(self, child: Child) -> None:
        self._all.append(child)

    def remove(self, child: Child) -> None:
        self._all.remove(child)

    @property
    def up(self) -> list[Child]:
        return [child for child in self._all if child.is_up and child.is_alive]

    @property
    def working(self) -> list[Child]:
        return [child for child in self._all if child.is_working]

    @property
    def solos(self) -> list[Child]:
        """Those that execute a single run, or will."""
        return [child for child in self._all if child.is_solo and child.is_alive and not child.is_leaving]

    @property
    def sessions(self) -> set[SessionId]:
        return {child.session for child in self._all}

    @property
    def has_process_tasks(self) -> bool:
        """Whether the code that is served has tasks whose runs each want a process of their own."""
        return any(
            child.has_process_tasks for child in self._all if child.is_up and child.generation == self.generation
        )
