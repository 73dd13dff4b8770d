"""The metadata of runs, changed by the runs themselves, by their children, and by all that descend from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

from detent.engine.place import Place
from detent.protocol import ids
from detent.protocol.fence import Stale
from detent.protocol.limits import METADATA_LIMIT
from detent.protocol.metadata import MetadataTarget, MetadataUpdate, MetadataUpdated, PlacedOperation

MOST_STORED = 2 * METADATA_LIMIT
"""Bytes as the database writes JSON, with spaces: what its callers have measured without is never refused."""


async def update_metadata(place: Place, updates: Sequence[MetadataUpdate]) -> list[MetadataUpdated | Stale]:
    requests = [_fields(i, update) for i, update in enumerate(updates)]
    rows = await place.db.call(
        "update_metadata", {"environment": place.environment, "requests": json.dumps(requests), "most": MOST_STORED}
    )
    answers: list[MetadataUpdated | Stale] = [Stale(run_id=update.holder.run_id) for update in updates]
    for i, document, is_refused in rows:
        answers[cast("int", i)] = MetadataUpdated(document=str(document), is_refused=bool(is_refused))
    return answers


def _fields(i: int, update: MetadataUpdate) -> dict[str, object]:
    targets = {placed.operation.target for placed in update.operations}
    return {
        "i": i,
        "id": ids.to_hex("run", update.holder.run_id),
        "fence": update.holder.fence,
        "parent": MetadataTarget.PARENT in targets,
        "root": MetadataTarget.ROOT in targets,
        "operations": [_operation_fields(placed) for placed in update.operations],
    }


def _operation_fields(placed: PlacedOperation) -> dict[str, object]:
    operation = placed.operation
    return {
        "place": placed.place,
        "number": placed.number,
        "kind": operation.kind,
        "target": operation.target,
        "path": operation.path,
        "value": operation.value,
    }
