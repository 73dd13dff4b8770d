"""The queues and limits that this process has declared, by kind and name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detent.errors import DuplicateLimitError

if TYPE_CHECKING:
    from detent.protocol.flow import LimitDeclaration, LimitKind
    from detent.sdk.source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    limit: LimitDeclaration
    origin: Source


class Declarations:
    """One queue, and one limit, a name. A module that is loaded again (reload on save) replaces its own."""

    def __init__(self) -> None:
        self._known: dict[tuple[LimitKind, str], Declaration] = {}

    def add(self, limit: LimitDeclaration, origin: Source) -> None:
        """Register *limit*; raises `DuplicateLimitError` when it is declared elsewhere with other bounds."""
        known = self._known.get((limit.kind, limit.name))
        if known is not None and known.limit != limit and not origin.replaces(known.origin):
            raise DuplicateLimitError(limit.kind, limit.name, known.origin.place, origin.place)
        self._known[limit.kind, limit.name] = Declaration(limit=limit, origin=origin)

    def all(self) -> list[LimitDeclaration]:
        """Return every queue and limit, in the order of their kinds and names."""
        return [self._known[key].limit for key in sorted(self._known)]

    def clear(self) -> None:
        self._known.clear()


declarations = Declarations()
