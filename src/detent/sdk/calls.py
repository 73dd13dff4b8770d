"""What calls return that can do more than be awaited."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from detent.sdk.result import Result

T = TypeVar("T")


class Awaited(Coroutine[Any, Any, T]):
    """A coroutine in everything but its type: `gather`, `TaskGroup` and `wait_for` take it. It warns when never awaited."""

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, T], name: str) -> None:
        setattr(coroutine, "__qualname__", name)  # noqa: B010 - what Python's own "was never awaited" warning says
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coroutine.__await__()

    def send(self, value: Any, /) -> Any:
        return self._coroutine.send(value)

    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> Any:
        error = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        return self._coroutine.throw(error if tb is None else error.with_traceback(tb))

    def close(self) -> None:
        self._coroutine.close()

    if not TYPE_CHECKING:  # asyncio and debuggers look for cr_frame and the like

        def __getattr__(self, name: str) -> object:
            if name.startswith("cr_"):
                return getattr(self._coroutine, name)
            raise AttributeError(f"{name!r} is not there before the call is awaited")


class ChildCall(Awaited[Result[T]]):
    """The wait for a child: await it for its `Result`, or unwrap it.

    Example::

        receipt = await charge.trigger_and_wait(order).unwrap()
    """

    __slots__ = ()

    async def unwrap(self) -> T:
        """Return the child's output. Raises `SubtaskUnwrapError` when it did not succeed."""
        return (await self).unwrap()
