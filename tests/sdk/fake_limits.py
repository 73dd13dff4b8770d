"""A target whose backend knows some queues and limits: it notes what is asked of it and answers as told."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from detent.protocol.flow import Bound, LimitChange, LimitKind, LimitRecord, LimitRef
from detent.protocol.refusal import Refused
from detent.sdk.target import Target


def record(kind: LimitKind, name: str, **fields: object) -> LimitRecord:
    defaults: dict[str, Any] = {
        "id": f"{'queue' if kind is LimitKind.QUEUE else 'climit'}_{name}", "total": Bound(), "per_key": Bound(),
        "rate": None, "most_queued": None, "paused_at": None, "running": 0, "queued": 0,
    }  # fmt: skip
    return LimitRecord(kind=kind, name=name, **{**defaults, **fields})


class FakeLimits:
    """`refusal`, when set, is the answer to every change."""

    def __init__(self, *records: LimitRecord) -> None:
        self.records = {(record.kind, record.name): record for record in records}
        self.changes: list[LimitChange] = []
        self.pages: list[tuple[int, int]] = []
        """Offsets and limits of the lists."""
        self.refusal: Refused | None = None

    @property
    def target(self) -> Target:
        return cast("Target", SimpleNamespace(connection=lambda: SimpleNamespace(backend=self)))

    async def list_limits(self, kind: LimitKind, *, offset: int = 0, limit: int = 25) -> tuple[list[LimitRecord], int]:
        self.pages.append((offset, limit))
        found = [self.records[key] for key in sorted(self.records) if key[0] is kind]
        return found[offset : offset + limit], len(found)

    async def retrieve_limits(self, refs: Sequence[LimitRef]) -> list[LimitRecord | None]:
        return [self.records.get((ref.kind, ref.name)) for ref in refs]

    async def change_limits(self, changes: Sequence[LimitChange]) -> list[LimitRecord | Refused]:
        self.changes += changes
        return [
            self.refusal
            or self.records.get((change.ref.kind, change.ref.name))
            or record(change.ref.kind, change.ref.name)
            for change in changes
        ]
