"""Queues and limits as they are read and changed: overrides, pauses, and the environment's own limit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import assert_never, cast
from uuid import UUID

from detent.engine.db import Row
from detent.engine.place import Place
from detent.protocol import ids
from detent.protocol.flow import (
    Bound,
    KeyOverride,
    LimitChange,
    LimitKind,
    LimitRecord,
    LimitRef,
    Override,
    OverrideKey,
    Pause,
    Rate,
    Reset,
    Resume,
)
from detent.protocol.refusal import Refused

_PREFIXES = {LimitKind.QUEUE: "queue", LimitKind.LIMIT: "climit", LimitKind.ENVIRONMENT: "env"}
_NOUNS = {LimitKind.QUEUE: "queue", LimitKind.LIMIT: "concurrency limit", LimitKind.ENVIRONMENT: "environment"}


async def list_limits(place: Place, kind: LimitKind, offset: int, limit: int) -> tuple[list[LimitRecord], int]:
    ((total,),) = await place.db.call("count_limits", {"environment": place.environment, "kind": kind.value})
    return await _find(place, kind, None, offset, limit), cast("int", total)


async def retrieve_limits(place: Place, refs: Sequence[LimitRef]) -> list[LimitRecord | None]:
    return [await _retrieve(place, ref) for ref in refs]


async def change_limits(place: Place, changes: Sequence[LimitChange]) -> list[LimitRecord | Refused]:
    return [await _change(place, change) for change in changes]


async def _change(place: Place, change: LimitChange) -> LimitRecord | Refused:
    ref = change.ref
    if ref.kind is LimitKind.ENVIRONMENT:
        await place.db.call("make_environment_limit", {"environment": place.environment})
    ((outcome,),) = await place.db.call(
        "change_limit", {"environment": place.environment, "limit": _id(place, ref)} | _fields(change)
    )
    place.notifier.notify(place.environment, ready=1)
    record = await _retrieve(place, ref) if outcome == "done" else None
    return record or _refusal(change, str(outcome))


def _fields(change: LimitChange) -> dict[str, object]:
    fields: dict[str, object] = {"total": None, "per_key": None, "rate": None, "key": None, "ttl": None}
    match change:
        case Pause():
            return fields | {"change": "pause"}
        case Resume():
            return fields | {"change": "resume"}
        case Reset(concurrency_key=None):
            return fields | {"change": "reset"}
        case Reset():
            return fields | {"change": "reset_key", "key": change.concurrency_key}
        case OverrideKey():
            return fields | {
                "change": "override_key",
                "key": change.concurrency_key,
                "per_key": str(change.per_key),
                "ttl": change.ttl.total_seconds(),
            }
        case Override():
            bounds = {"total": change.total, "per_key": change.per_key, "rate": change.rate}
            return fields | {"change": "override"} | {name: _bound_text(bound) for name, bound in bounds.items()}
        case _:
            assert_never(change)


def _bound_text(bound: int | Rate | str | None) -> str | None:
    """Return what `change_limit` reads: null leaves a bound as it is."""
    if bound == "kept":
        return None
    if bound is None:
        return "none"
    return json.dumps(asdict(bound)) if isinstance(bound, Rate) else str(bound)


def _refusal(change: LimitChange, outcome: str) -> Refused:
    noun, name = _NOUNS[change.ref.kind], change.ref.name
    match outcome:
        case "unchanged":
            what = f'key "{change.concurrency_key}" of ' if isinstance(change, Reset) and change.concurrency_key else ""
            message = f'{what}{noun} "{name}" is not overridden: there is nothing to reset'
            return Refused(status=400, code="not_overridden", message=message)
        case "unbounded":
            message = f'{noun} "{name}" has no bound per key, so that no key can have another; give it per_key='
            return Refused(status=400, code="no_key_bound", message=message)
        case _:
            message = f'there is no {noun} "{name}"; it is there once a worker has registered the code that declares it'
            return Refused(status=404, code=f"{change.ref.kind.value}_not_found", message=message)


async def _retrieve(place: Place, ref: LimitRef) -> LimitRecord | None:
    found = await _find(place, ref.kind, [_id(place, ref)], 0, 1)
    return found[0] if found else None


async def _find(place: Place, kind: LimitKind, wanted: list[UUID] | None, offset: int, limit: int) -> list[LimitRecord]:
    rows = await place.db.call(
        "find_limits",
        {"environment": place.environment, "kind": kind.value, "ids": wanted, "offset": offset, "limit": limit},
    )
    return [_record(kind, row) for row in rows]


def _id(place: Place, ref: LimitRef) -> UUID:
    """Return the id that a reference gives, or that of the name: its hash, as `detent.limit_id` makes it."""
    try:
        return ids.decode(_PREFIXES[ref.kind], ref.name)
    except ValueError:
        text = json.dumps([place.environment, ref.kind.value, ref.name], ensure_ascii=False)
        return UUID(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest())


def _record(kind: LimitKind, row: Row) -> LimitRecord:
    (limit_id, name, total, total_override, total_at, per_key, per_key_override, per_key_at, rate, rate_override, rate_at,
     most_queued, paused_at, running, queued, overrides) = row  # fmt: skip
    return LimitRecord(
        id=ids.encode(_PREFIXES[kind], cast("UUID", limit_id)),
        kind=kind,
        name=str(name),
        total=_bound(total, total_override, total_at),
        per_key=_bound(per_key, per_key_override, per_key_at),
        rate=_rate(rate if rate_at is None else rate_override),
        most_queued=cast("int | None", most_queued),
        paused_at=cast("datetime | None", paused_at),
        running=cast("int", running),
        queued=cast("int", queued),
        key_overrides=tuple(
            KeyOverride(concurrency_key=key, per_key=allowed, expires_at=datetime.fromtimestamp(float(until), UTC))
            for key, allowed, until in cast("list[tuple[str, int, float]]", overrides or ())
        ),
    )


def _bound(base: object, override: object, overridden_at: object) -> Bound:
    return Bound(
        base=cast("int | None", base),
        override=cast("int | None", override),
        overridden_at=cast("datetime | None", overridden_at),
    )


def _rate(found: object) -> Rate | None:
    if found is None:
        return None
    rate = cast("Mapping[str, object]", found)
    return Rate(
        starts=cast("int", rate["starts"]), period=cast("float", rate["period"]), per_key=bool(rate["per_key"])
    )
