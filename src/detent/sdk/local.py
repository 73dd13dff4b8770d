"""`Local`: a value of one attempt, for its function, its hooks and its middleware."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

from detent.errors import LocalUnsetError
from detent.sdk import scope

T = TypeVar("T")


class Local(Generic[T]):
    """A named value that each attempt has of its own. Two with one name are the same.

    Example::

        Db = Local[Connection]("db")

        @tasks.middleware("db")
        async def db(next: Next) -> None:
            async with connect() as conn:
                Db.set(conn)
                await next()

    Every thread and asyncio task of the attempt sees it. A retry and a replay begin without it.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f'Local("{self.name}")'

    def set(self, value: T) -> None:
        """Set the value in the present attempt. Raises `OutsideRunError` outside one."""
        scope.require(f'Local("{self.name}").set').locals[self.name] = value

    def get(self) -> T | None:
        """Return the value; None when it was not set, and outside a run."""
        present = scope.current()
        return None if present is None else cast("T | None", present.locals.get(self.name))

    def get_or_raise(self) -> T:
        """Return the value. Raises `LocalUnsetError` when it was not set, and `OutsideRunError` outside a run."""
        values = scope.require(f'Local("{self.name}").get_or_raise').locals
        if self.name not in values:
            raise LocalUnsetError(self.name)
        return cast("T", values[self.name])
