"""The tasks that this process has defined, by id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detent.errors import DuplicateTaskIdError

if TYPE_CHECKING:
    from detent.sdk.definition import AnyTask


class Registry:
    """One task an id. A module that is loaded again (reload on save) replaces its own tasks."""

    def __init__(self) -> None:
        self._tasks: dict[str, AnyTask] = {}

    def add(self, task: AnyTask) -> None:
        """Register *task*; raises `DuplicateTaskIdError` when another function already has its id."""
        known = self._tasks.get(task.id)
        if known is not None and not task.origin.replaces(known.origin):
            raise DuplicateTaskIdError(task.id, known.place, task.place)
        self._tasks[task.id] = task

    def get(self, task_id: str) -> AnyTask | None:
        return self._tasks.get(task_id)

    def all(self) -> list[AnyTask]:
        """Return every task, in the order of their ids."""
        return [self._tasks[task_id] for task_id in sorted(self._tasks)]

    def clear(self) -> None:
        self._tasks.clear()


registry = Registry()
