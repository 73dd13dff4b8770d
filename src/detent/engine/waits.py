"""Waiting: for a moment, a token, runs and batches.

A run whose code stands in waits is WAITING and holds no slot. The waiter locks the waitpoints it needs and makes an edge for
each that is pending; the completer marks waitpoints, then in a new snapshot of the same transaction reads the edges and wakes
the runs behind them. Either the waiter sees the completion, or the completer sees the edge. Each completion wakes: what the
run makes of it, and whether it then waits on for the rest, is its code's affair.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import cast

from detent.engine import lifecycle
from detent.engine.attempts import holders_json, public, results_of
from detent.engine.outcomes import token_result
from detent.engine.place import Place
from detent.engine.tokens import key_fields, key_in_use
from detent.protocol import ids
from detent.protocol.fence import Holder, Stale
from detent.protocol.ids import RunId
from detent.protocol.refusal import Refused
from detent.protocol.waits import Delivery, Pending, Suspended, Suspension, TimeWait, TokenWait, Wait, WaitResult

Fields = dict[str, object]


async def wait_for(place: Place, waits: Sequence[Wait]) -> list[WaitResult | Pending | Suspended | Refused | Stale]:
    requests = [_wait_fields(i, wait) for i, wait in enumerate(waits)]
    for wait in waits:
        if isinstance(wait, TimeWait):
            place.alarm.set(wait.until)
    rows = await place.db.call(
        "wait_for",
        {
            "environment": place.environment,
            "requests": json.dumps(requests),
            "has_keys": any(isinstance(wait, TimeWait) and wait.key is not None for wait in waits),
        },
    )
    answers: list[WaitResult | Pending | Suspended | Refused | Stale] = [
        Stale(run_id=wait.origin.holder.run_id) for wait in waits
    ]
    for i, ref, is_pending, is_suspended, output, error in rows:
        if i is None:
            place.notifier.notify(place.environment, ready=1)
            continue
        wait = waits[cast("int", i)]
        if ref is None:
            answers[cast("int", i)] = key_in_use(wait.key) if isinstance(wait, TimeWait) else _unknown(wait)
        elif is_pending:
            answers[cast("int", i)] = Suspended() if is_suspended else Pending()
        else:
            answers[cast("int", i)] = token_result(wait.origin.operation, output, error)
    return answers


async def suspend(place: Place, suspensions: Sequence[Suspension]) -> list[Suspended | Pending | Stale]:
    for suspension in suspensions:
        if suspension.until is not None:
            place.alarm.set(suspension.until)
    requests = [_suspension_fields(i, suspension) for i, suspension in enumerate(suspensions)]
    rows = await place.db.call("suspend", {"requests": json.dumps(requests)})
    answers: list[Suspended | Pending | Stale] = [Stale(run_id=one.holder.run_id) for one in suspensions]
    for i, is_suspended in rows:
        if i is None:
            place.notifier.notify(place.environment, ready=1)
            continue
        answers[cast("int", i)] = Suspended() if is_suspended else Pending()
    return answers


async def collect(place: Place, holders: Sequence[Holder]) -> list[Delivery]:
    rows = await place.db.call("collect", {"holders": holders_json(holders)})
    return [
        Delivery(
            holder=Holder(run_id=RunId(public("run", run_id)), fence=cast("int", fence)),
            results=results_of(cast("list[list[object]]", results)),
        )
        for run_id, fence, results in rows
    ]


def _wait_fields(i: int, wait: Wait) -> Fields:
    origin = wait.origin
    fields: Fields = {
        "i": i,
        "id": ids.to_hex("waitpoint", wait.waitpoint_id),
        "parent": ids.to_hex("run", origin.holder.run_id),
        "fence": origin.holder.fence,
        "operation": origin.operation,
        "kind": "time" if isinstance(wait, TimeWait) else "token",
        "suspends": origin.suspends,
        "answers": origin.stamp.answers,
        "seen": origin.stamp.seen,
    }
    if isinstance(wait, TimeWait):
        fields |= {"delay": lifecycle.seconds(wait.until), "due_at": lifecycle.date(wait.until)} | key_fields(wait.key)
    return fields


def _suspension_fields(i: int, suspension: Suspension) -> Fields:
    return {
        "i": i,
        "id": ids.to_hex("run", suspension.holder.run_id),
        "fence": suspension.holder.fence,
        "wake": max(timedelta(), suspension.until).total_seconds() if suspension.until is not None else None,
        "delivered": suspension.delivered,
    }


def _unknown(wait: TokenWait) -> Refused:
    return Refused(
        status=404,
        code="unknown_token",
        message=f"run {wait.origin.holder.run_id} waits for {wait.waitpoint_id}, and there is no such token",
    )
