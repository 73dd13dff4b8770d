"""What `queues` and `concurrency_limits` have in common: a backend knows both as limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from detent.errors import NotFoundError
from detent.sdk.page import Page

if TYPE_CHECKING:
    from detent.protocol.flow import LimitChange, LimitRecord, LimitRef
    from detent.sdk.target import Target

T = TypeVar("T")

LARGEST_PAGE = 100
_WORDS = {"queue": "queue", "limit": "concurrency limit"}


class Limits(Generic[T]):
    """The limits of one kind; *make* gives them as callers see them."""

    def __init__(self, target: Target, kind: Literal["queue", "limit"], make: Callable[[LimitRecord], T]) -> None:
        self._target, self._kind, self._make = target, kind, make

    def ref(self, name: str) -> LimitRef:
        from detent.protocol.flow import LimitKind, LimitRef

        return LimitRef(kind=LimitKind(self._kind), name=name)

    async def retrieve(self, ref: LimitRef) -> T:
        (record,) = await self._target.connection().backend.retrieve_limits([ref])
        if record is None:
            raise NotFoundError(
                f'there is no {_WORDS[self._kind]} "{ref.name}" in this environment; it is there once a worker has registered it',
                code=f"{self._kind}_not_found",
            )
        return self._make(record)

    async def pause(self, ref: LimitRef) -> T:
        from detent.protocol.flow import Pause

        return await self.change(Pause(ref=ref))

    async def resume(self, ref: LimitRef) -> T:
        from detent.protocol.flow import Resume

        return await self.change(Resume(ref=ref))

    async def reset(self, ref: LimitRef, *, concurrency_key: str | None = None) -> T:
        from detent.protocol.flow import Reset

        return await self.change(Reset(ref=ref, concurrency_key=concurrency_key))

    async def change(self, change: LimitChange) -> T:
        """Carry out a change and return what has become of the limit. Raises the `ApiError` of a refusal."""
        from detent.protocol.refusal import Refused, to_error

        (answer,) = await self._target.connection().backend.change_limits([change])
        if isinstance(answer, Refused):
            raise to_error(answer)
        return self._make(answer)

    async def page(self, number: int, per_page: int) -> Page[T]:
        """Return a page by its number, the first is 1."""
        from detent.protocol.flow import LimitKind

        kind, backend = LimitKind(self._kind), self._target.connection().backend
        records, count = await backend.list_limits(kind, offset=(number - 1) * per_page, limit=per_page)
        return Page(
            items=tuple(map(self._make, records)),
            read_next=(lambda: self.page(number + 1, per_page)) if number * per_page < count else None,
        )


def check_page(page: int, per_page: int) -> None:
    """Raise `ValueError` for what is no page."""
    if page < 1:
        raise ValueError(f"page={page!r} must be 1 or more")
    if not 1 <= per_page <= LARGEST_PAGE:
        raise ValueError(f"per_page={per_page!r} must be 1 to {LARGEST_PAGE}; use `async for` to go through more")
