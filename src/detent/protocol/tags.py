"""Tags that a run gives itself, and that others give it."""

from __future__ import annotations

from dataclasses import dataclass

from detent.protocol.fence import Holder
from detent.protocol.ids import RunId


@dataclass(frozen=True, slots=True, kw_only=True)
class TagsAddition:
    """Tags that a run gives itself."""

    holder: Holder
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTagging:
    """Tags that somebody outside adds to a run, live or over."""

    run_id: RunId
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TagsAdded:
    """`count`: how many the run has now; when there would be more than the limit, none was added."""

    count: int
