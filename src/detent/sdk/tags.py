"""`tags`: names that a run gives itself, to be found by."""

from __future__ import annotations

from collections.abc import Iterable

from detent.sdk import options
from detent.sdk import scope as run_scope
from detent.sdk.blocking import blocking


class Tags:
    """The tags of the present run."""

    label = "tags"

    def __init__(self) -> None:
        self.sync = TagsSync(self)

    async def add(self, tags: str | Iterable[str]) -> None:
        """Add a tag, or several, to the present run; blank ones and those that it has are passed over.

        Raises `TooManyTagsError` when there would be more than 10, and `ValueError` for one of over 128 characters: none is added
        then. `ctx.run.tags` stays as it was when the attempt began. Outside of runs, `OutsideRunError`.

        Example::

            await tags.add("user:7")
        """
        scope = run_scope.require("tags.add")
        added = options.to_tags("tags", tags)
        if added:
            await scope.add_tags(added)


class TagsSync:
    """`tags` as blocking calls."""

    def __init__(self, tags: Tags) -> None:
        self.add = blocking(tags.add)


tags = Tags()
