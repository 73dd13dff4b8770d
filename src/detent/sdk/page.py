"""Long lists, a page at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from detent.sdk.blocking import blocking
from detent.sdk.calls import Awaited

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Page(Generic[T]):
    """Some of a list, and the way to the rest. Iterate over it for these; with `async for`, for these and all that follow."""

    items: tuple[T, ...]
    read_next: Callable[[], Coroutine[Any, Any, Page[T]]] | None = field(repr=False)
    """None on the last page."""

    label: ClassVar[str] = "page"

    @property
    def has_next_page(self) -> bool:
        return self.read_next is not None

    async def next_page(self) -> Page[T] | None:
        """Return the page after this one; None after the last."""
        return None if self.read_next is None else await self.read_next()

    @property
    def sync(self) -> PageSync[T]:
        """All items from this page on, by a plain `for`; and `next_page` as a blocking call."""
        return PageSync(self)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    async def __aiter__(self) -> AsyncIterator[T]:
        page: Page[T] | None = self
        while page is not None:
            for item in page.items:
                yield item
            page = await page.next_page()


class PageSync(Generic[T]):
    """A page, for code without an event loop."""

    def __init__(self, page: Page[T]) -> None:
        self._page = page
        self.next_page = blocking(page.next_page)

    def __iter__(self) -> Iterator[T]:
        page: Page[T] | None = self._page
        while page is not None:
            yield from page
            page = page.sync.next_page()


class PageCall(Awaited[Page[T]]):
    """The call that gives a list: await it for a page, or iterate with `async for` over all pages."""

    __slots__ = ()

    async def __aiter__(self) -> AsyncIterator[T]:
        async for item in await self:
            yield item
