"""Tags that a run gives itself."""

from __future__ import annotations

from dataclasses import dataclass

from detent.protocol.fence import Holder


@dataclass(frozen=True, slots=True, kw_only=True)
class TagsAddition:
    """Tags that a run gives itself."""

    holder: Holder
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TagsAdded:
    """`count`: how many the run has now; when there would be more than the limit, none was added."""

    count: int
