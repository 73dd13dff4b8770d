"""The metadata of runs, changed by the runs themselves, by all that descend from them, and from outside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

from detent.engine.place import Place
from detent.protocol import ids
from detent.protocol.fence import Stale
from detent.protocol.limits import METADATA_LIMIT
from detent.protocol.metadata import (
    MetadataOperation,
    MetadataTarget,
    MetadataUpdate,
    MetadataUpdated,
    PlacedOperation,
    RunAnnotated,
    RunAnnotation,
)

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


async def annotate_runs(place: Place, annotations: Sequence[RunAnnotation]) -> list[RunAnnotated | None]:
    requests = [
        {
            "i": i,
            "id": ids.to_hex("run", annotation.run_id),
            "operations": [_what(operation) for operation in annotation.operations],
        }
        for i, annotation in enumerate(annotations)
    ]
    params = {"environment": place.environment, "requests": json.dumps(requests), "most": METADATA_LIMIT}
    answers = {
        i: RunAnnotated(document=str(document), refused_size=cast("int | None", size))
        for i, document, size in await place.db.call("annotate_runs", params)
    }
    return [answers.get(i) for i in range(len(annotations))]


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
    return {"place": placed.place, "number": placed.number, "target": operation.target} | _what(operation)


def _what(operation: MetadataOperation) -> dict[str, object]:
    return {"kind": operation.kind, "path": operation.path, "value": operation.value}
