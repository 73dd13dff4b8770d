"""Tags that runs give themselves, and that others give them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

from detent.engine.place import Place
from detent.protocol import ids
from detent.protocol.fence import Stale
from detent.protocol.limits import TAGS_LIMIT
from detent.protocol.tags import RunTagging, TagsAdded, TagsAddition


async def add_tags(place: Place, additions: Sequence[TagsAddition]) -> list[TagsAdded | Stale]:
    requests = [
        {
            "i": i,
            "id": ids.to_hex("run", addition.holder.run_id),
            "fence": addition.holder.fence,
            "tags": addition.tags,
        }
        for i, addition in enumerate(additions)
    ]
    rows = await place.db.call(
        "add_tags", {"environment": place.environment, "requests": json.dumps(requests), "most": TAGS_LIMIT}
    )
    answers: list[TagsAdded | Stale] = [Stale(run_id=addition.holder.run_id) for addition in additions]
    for i, count in rows:
        answers[cast("int", i)] = TagsAdded(count=cast("int", count))
    return answers


async def tag_runs(place: Place, additions: Sequence[RunTagging]) -> list[TagsAdded | None]:
    requests = [
        {"i": i, "id": ids.to_hex("run", addition.run_id), "tags": addition.tags} for i, addition in enumerate(additions)
    ]
    params = {"environment": place.environment, "requests": json.dumps(requests), "most": TAGS_LIMIT}
    counts = {i: cast("int", count) for i, count in await place.db.call("tag_runs", params)}
    return [TagsAdded(count=counts[i]) if i in counts else None for i in range(len(additions))]
