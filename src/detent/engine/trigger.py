"""Triggering, from outside and from inside a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import cast
from uuid import UUID

from detent.engine import lifecycle
from detent.engine.db import Row
from detent.engine.lanes import Lane, bound, lane_of
from detent.engine.outcomes import child_result
from detent.engine.place import Place
from detent.protocol import ids
from detent.protocol.children import ChildRequest, ChildTriggered
from detent.protocol.fence import Stale
from detent.protocol.flow import DebounceMode, Debouncing
from detent.protocol.ids import RunId
from detent.protocol.moment import When
from detent.protocol.operations import Origin
from detent.protocol.refusal import Refused
from detent.protocol.triggering import Triggered, TriggerRequest
from detent.protocol.waits import Pending, Suspended, WaitResult

Fields = dict[str, object]


async def trigger(
    place: Place, requests: Sequence[TriggerRequest], *, is_repeat: bool = False
) -> list[Triggered | Refused]:
    """Make runs; a request that does not fit its task's schema is refused, the others are made."""
    refusals = await place.tasks.check(requests)
    good = [i for i in range(len(requests)) if i not in refusals]
    answers: list[Triggered | Refused] = [refusals.get(i) or _UNANSWERED for i in range(len(requests))]
    if good:
        fields = [fields_of(place, i, requests[i]) for i in good]
        await ensure_lanes(place, [(requests[i], None) for i in good])
        escort = place.notifier.escort(place.environment, sum(_delay(requests[i]) is None for i in good))
        rows = await place.db.call(
            "trigger_runs",
            {
                "environment": place.environment,
                "requests": json.dumps(fields),
                "has_keys": any(requests[i].idempotency for i in good),
                "is_repeat": is_repeat,
            },
            behind=escort,
        )
        for i, run_id, is_cached in rows:
            answers[cast("int", i)] = _triggered(requests[cast("int", i)], run_id, is_cached)
        tell(place, [requests[i] for i in good], is_escorted=escort is not None)
    return answers


async def trigger_children(place: Place, children: Sequence[ChildRequest]) -> list[ChildTriggered | Stale | Refused]:
    requests = [child.request for child in children]
    refusals = await place.tasks.check(requests, {name for child in children if (name := preferred_by(child.origin))})
    good = [i for i in range(len(children)) if i not in refusals]
    answers: list[ChildTriggered | Stale | Refused] = [
        refusals.get(i) or Stale(run_id=child.origin.holder.run_id) for i, child in enumerate(children)
    ]
    if good:
        await ensure_lanes(place, [(requests[i], preferred_by(children[i].origin)) for i in good])
        rows = await place.db.call(
            "trigger_children",
            {
                "environment": place.environment,
                "requests": json.dumps([_child_fields(place, i, children[i]) for i in good]),
                "has_keys": any(requests[i].idempotency for i in good),
                "is_repeat": False,
            },
        )
        for row in rows:
            if row[0] is None:
                place.notifier.notify(place.environment, ready=1)
                continue
            i = cast("int", row[0])
            answers[i] = _child_triggered(children[i], row)
        tell(place, [requests[cast("int", row[0])] for row in rows if row[0] is not None])
    return answers


def fingerprint_of_child(task_id: str) -> str:
    return task_id


_UNANSWERED = Refused(status=500, code="no_answer", message="the database gave no answer for this request")


def tell(place: Place, made: Sequence[TriggerRequest], *, is_escorted: bool = False) -> None:
    delayed = [when for request in made if (when := _delay(request)) is not None]
    for when in delayed:
        place.alarm.set(when)
    if not is_escorted:
        tasks = {request.task_id for request in made}
        place.notifier.notify(place.environment, ready=len(made) - len(delayed), tasks=tasks)


def preferred_by(origin: Origin | None) -> str | None:
    return origin.version if origin is not None and origin.wait else None


async def ensure_lanes(place: Place, requests: Iterable[tuple[TriggerRequest, str | None]]) -> None:
    lanes = {lane for request, preferred in requests for lane in (_base_lane(place, request), _lane(place, request, preferred))}
    await place.lanes.ensure(place.environment, lanes)


def _base_lane(place: Place, request: TriggerRequest) -> Lane:
    pinned = place.tasks.version(request.version)
    return lane_of(
        place.environment,
        request.queue or place.tasks.task(request.task_id).queue,
        request.concurrency_key,
        request.task_id,
        request.limits,
        pinned.version_id if pinned else None,
    )


def _lane(place: Place, request: TriggerRequest, preferred: str | None) -> Lane:
    """Return where a run stands: with a preferred version that is not the current one anyway, in the lane of that version."""
    base, version = _base_lane(place, request), place.tasks.version(preferred)
    if base.is_pinned or version is None or request.task_id not in version.task_ids:
        return base
    is_current = version.version_id == place.tasks.task(request.task_id).version_id
    return base if is_current else bound(base, version.version_id)


def _delay(request: TriggerRequest) -> When | None:
    return request.debounce.delay if request.delay is None and request.debounce is not None else request.delay


def fields_of(place: Place, i: int, request: TriggerRequest, preferred: str | None = None) -> Fields:
    """Return what `insert_runs` reads of a request; what is absent is null there."""
    lane, life = _lane(place, request, preferred), place.tasks.task(request.task_id).ttl if request.ttl is None else request.ttl
    fields: Fields = {
        "i": i,
        "id": ids.to_hex("run", request.run_id),
        "task": request.task_id,
        "lane": lane.lane_id,
        "queue": lane.queue,
        "payload": request.payload,
    }
    if lane.may_sleep:
        fields["sleeps"] = True
    if life:
        fields["life"] = life
    if request.ttl is not None:
        fields["ttl"] = request.ttl
    if request.limits is not None:
        fields["limits"] = request.limits
    if request.debounce is not None:
        fields |= _debounce_fields(request.debounce)
    if request.concurrency_key is not None:
        fields["ckey"] = request.concurrency_key
    if request.metadata is not None:
        fields["metadata"] = request.metadata
    if request.tags:
        fields["tags"] = request.tags
    if (delay := _delay(request)) is not None:
        fields["delay"], fields["due_at"] = lifecycle.seconds(delay), lifecycle.date(delay)
    if request.priority:
        fields["priority"] = request.priority
    if request.max_attempts is not None:
        fields["max_attempts"] = request.max_attempts
    if request.max_duration is not None:
        fields["max_duration"] = request.max_duration
    if request.machine is not None:
        fields["machine"] = request.machine
    if request.is_watched:
        fields["watched"] = True
    if request.replay_of is not None:
        fields["replay_of"] = ids.to_hex("run", request.replay_of)
    if request.is_test:
        fields["test"] = True
    if request.idempotency is not None:
        key = request.idempotency
        fields |= {"key": key.key, "user_key": key.user_key, "scope": key.scope, "key_ttl": key.ttl.total_seconds()}
    return fields


def _debounce_fields(debounce: Debouncing) -> Fields:
    return {
        "debounce": debounce.key,
        "debounce_delay": debounce.delay.total_seconds(),
        "most_delay": debounce.max_delay.total_seconds() if debounce.max_delay is not None else None,
        "trails": debounce.mode is DebounceMode.TRAILING,
    }


def _child_fields(place: Place, i: int, child: ChildRequest) -> Fields:
    origin = child.origin
    return fields_of(place, i, child.request, preferred_by(origin)) | {
        "parent": ids.to_hex("run", origin.holder.run_id),
        "fence": origin.holder.fence,
        "operation": origin.operation,
        "kind": "child" if origin.wait else "trigger",
        "fingerprint": fingerprint_of_child(child.request.task_id),
        "waits": origin.wait,
        "awaited": origin.wait,
        "suspends": origin.suspends,
        "answers": origin.stamp.answers,
        "seen": origin.stamp.seen,
    }


def _triggered(request: TriggerRequest, run_id: object, is_cached: object) -> Triggered:
    if not is_cached:
        return Triggered(run_id=request.run_id)
    return Triggered(run_id=RunId(ids.encode("run", cast("UUID", run_id))), is_cached=True)


def _child_triggered(child: ChildRequest, row: Row) -> ChildTriggered:
    _, run_id, is_cached, is_pending, is_suspended, status, task_id, output, error = row
    # Not the request's own id: the operation may have been recorded before, under another.
    triggered = Triggered(run_id=RunId(ids.encode("run", cast("UUID", run_id))), is_cached=bool(is_cached))
    if not child.origin.wait:
        return ChildTriggered(triggered=triggered)
    if is_pending:
        return ChildTriggered(triggered=triggered, wait=Suspended() if is_suspended else Pending())
    outcome = child_result(cast("UUID", run_id), task_id, status, output, error)
    return ChildTriggered(triggered=triggered, wait=WaitResult(operation=child.origin.operation, child=outcome))
