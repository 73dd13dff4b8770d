"""Runs that are over, leased once more for their final hooks alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import cast
from uuid import UUID

from detent.engine.attempts import holders_json, public
from detent.engine.db import Row
from detent.engine.place import Place
from detent.protocol import ids, run_error
from detent.protocol.execution import Isolation
from detent.protocol.fence import Holder
from detent.protocol.final_hooks import HooksLease, HooksRequest
from detent.protocol.ids import BatchId, RunId
from detent.protocol.leases import Lease
from detent.protocol.status import RunStatus


async def lease_hooks(place: Place, request: HooksRequest) -> list[HooksLease]:
    params = {
        "session": ids.decode("session", request.session_id),
        "fence": request.fence,
        "most": request.most,
    }
    return [_hooks_lease(request.fence, row) for row in await place.db.call("lease_hooks", params)]


async def end_hooks(place: Place, holders: Sequence[Holder]) -> list[None]:
    await place.db.call("end_hooks", {"holders": holders_json(holders)})
    return [None] * len(holders)


def _hooks_lease(fence: int, row: Row) -> HooksLease:
    (run_id, attempt, task_id, isolation, created_at, started_at, queue, concurrency_key, priority, tags, payload, metadata,
     max_attempts, max_duration, idempotency_key, idempotency_scope, version, parent_id, root_id, batch_id, replay_of, is_test,
     machine, active, status, output, error, tries) = row  # fmt: skip
    lease = Lease(
        run_id=RunId(ids.encode("run", cast("UUID", run_id))),
        fence=fence,
        attempt=cast("int", attempt),
        task_id=str(task_id),
        isolation=Isolation(str(isolation)),
        payload=cast("str | None", payload),
        is_resumed=False,
        has_journal=False,
        results=(),
        created_at=cast("datetime", created_at),
        started_at=cast("datetime", started_at),
        queue=str(queue),
        concurrency_key=cast("str | None", concurrency_key),
        priority=cast("float", priority),
        tags=tuple(cast("list[str]", tags)),
        metadata=cast("str | None", metadata),
        max_attempts=cast("int | None", max_attempts),
        max_duration=cast("float | None", max_duration),
        idempotency_key=cast("str | None", idempotency_key),
        idempotency_key_scope=cast("str | None", idempotency_scope),
        version=str(version),
        parent_run_id=RunId(public("run", parent_id)) if parent_id else None,
        root_run_id=RunId(public("run", root_id)) if root_id else None,
        batch_id=BatchId(public("batch", batch_id)) if batch_id else None,
        replay_of=RunId(public("run", replay_of)) if replay_of else None,
        is_test=bool(is_test),
        machine=cast("str | None", machine),
        active=cast("float", active),
    )
    return HooksLease(
        lease=lease,
        status=RunStatus(str(status)),
        output=cast("str | None", output),
        error=run_error.from_json(str(error)) if error is not None else None,
        number=cast("int", tries),
    )
