"""Tokens: waitpoints that somebody completes from anywhere, or nobody in time; and the keys of waits.

A token lives by itself: it may be completed before anybody waits for it, awaited by many, and read when all of them are over.
The first completion counts, be it a person's or the timeout's; later ones change nothing.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import cast
from uuid import UUID

from detent.engine import lifecycle
from detent.engine.attempts import public
from detent.engine.db import Row
from detent.engine.events import announce
from detent.engine.place import Place
from detent.protocol import ids, run_error
from detent.protocol.fence import Stale
from detent.protocol.idempotency import WaitKey
from detent.protocol.ids import WaitpointId
from detent.protocol.refusal import Refused
from detent.protocol.status import TokenStatus
from detent.protocol.tokens import TokenCompletion, TokenCreated, TokenFilter, TokenRecord, TokenRequest

Fields = dict[str, object]

SECRET_BYTES = 32


async def create_tokens(place: Place, requests: Sequence[TokenRequest]) -> list[TokenCreated | Refused | Stale]:
    for request in requests:
        place.alarm.set(request.timeout)
    fields = [_request_fields(i, request) for i, request in enumerate(requests)]
    rows = await place.db.call("create_tokens", {"environment": place.environment, "requests": json.dumps(fields)})
    created = {cast("int", i): (ref, secret, is_cached) for i, ref, secret, is_cached in rows}
    return [_created(request, created.get(i)) for i, request in enumerate(requests)]


async def complete_tokens(place: Place, completions: Sequence[TokenCompletion]) -> list[bool | None]:
    fields = [_completion_fields(i, completion) for i, completion in enumerate(completions)]
    rows = await place.db.call(
        "complete_tokens",
        {"environment": place.environment, "completions": json.dumps(fields), "is_repeat": False},
    )
    woken = [("woken", run_id, "QUEUED", session, False) for what, _, run_id, session in rows if what == "woken"]
    announce(place.notifier, place.environment, woken)
    answers: list[bool | None] = [None] * len(completions)
    for what, i, _, _ in rows:
        if i is not None:
            answers[cast("int", i)] = what == "first"
    return answers


async def retrieve_tokens(place: Place, token_ids: Sequence[WaitpointId]) -> list[TokenRecord | None]:
    uuids = [ids.decode("waitpoint", token_id) for token_id in token_ids]
    rows = await place.db.call("find_tokens", {"environment": place.environment, "ids": uuids})
    found = {cast("UUID", row[0]): _record(row) for row in rows}
    return [found.get(value) for value in uuids]


async def list_tokens(place: Place, query: TokenFilter) -> list[TokenRecord]:
    rows = await place.db.call(
        "list_tokens",
        {
            "environment": place.environment,
            "before": ids.decode("waitpoint", query.before) if query.before else None,
            "statuses": [status.value for status in query.statuses] or None,
            "key": query.idempotency_key,
            "tags": list(query.tags) or None,
            "after": query.created_after,
            "until": query.created_before,
            "limit": query.limit,
        },
    )
    return [_record(row) for row in rows]


def key_fields(key: WaitKey | None) -> Fields:
    if key is None:
        return {}
    return {"key": key.key, "key_ttl": key.ttl.total_seconds() if key.ttl is not None else None}


def key_in_use(key: WaitKey | None) -> Refused:
    """Return the refusal of a key that stands for another kind of wait."""
    name = key.key if key is not None else ""
    message = f'the idempotency key "{name}" is taken: tokens and waits for a moment share one name space; use another key'
    return Refused(status=409, code="key_in_use", message=message)


def _request_fields(i: int, request: TokenRequest) -> Fields:
    fields: Fields = {
        "i": i,
        "id": ids.to_hex("waitpoint", request.waitpoint_id),
        "kind": "token",
        "secret": secrets.token_hex(SECRET_BYTES),
        "tags": request.tags,
        "delay": lifecycle.seconds(request.timeout),
        "due_at": lifecycle.date(request.timeout),
    }
    if request.origin is not None:
        fields |= {
            "parent": ids.to_hex("run", request.origin.holder.run_id),
            "fence": request.origin.holder.fence,
            "operation": request.origin.operation,
            "answers": request.origin.stamp.answers,
            "seen": request.origin.stamp.seen,
        }
    return fields | key_fields(request.key)


def _created(request: TokenRequest, found: tuple[object, object, object] | None) -> TokenCreated | Refused | Stale:
    if found is None:
        # Nothing but a run that is held by others goes without an answer.
        assert request.origin is not None
        return Stale(run_id=request.origin.holder.run_id)
    ref, secret, is_cached = found
    if ref is None:
        return key_in_use(request.key)
    return TokenCreated(
        waitpoint_id=WaitpointId(public("waitpoint", ref)), secret=str(secret), is_cached=bool(is_cached)
    )


def _completion_fields(i: int, completion: TokenCompletion) -> Fields:
    return {
        "i": i,
        "id": ids.to_hex("waitpoint", completion.waitpoint_id),
        "output": completion.output,
        "error": run_error.to_json(completion.error) if completion.error is not None else None,
    }


def _record(row: Row) -> TokenRecord:
    (token_id, is_timed_out, tags, created_at, due_at, completed_at, key, expires_at, secret, output, error) = row
    return TokenRecord(
        id=WaitpointId(public("waitpoint", token_id)),
        status=_status(completed_at is not None, bool(is_timed_out)),
        tags=tuple(cast("list[str]", tags)),
        created_at=cast("datetime", created_at),
        timeout_at=cast("datetime | None", due_at),
        completed_at=cast("datetime | None", completed_at),
        idempotency_key=cast("str | None", key),
        idempotency_key_expires_at=cast("datetime | None", expires_at),
        secret=str(secret),
        output=cast("str | None", output),
        error=run_error.from_json(str(error)) if error is not None else None,
    )


def _status(is_completed: bool, is_timed_out: bool) -> TokenStatus:
    if not is_completed:
        return TokenStatus.WAITING
    return TokenStatus.TIMED_OUT if is_timed_out else TokenStatus.COMPLETED
