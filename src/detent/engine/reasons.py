"""Why a run is not running: computed from its state, in words and as a code with facts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from detent.protocol import ids
from detent.protocol.flow import LimitKind
from detent.protocol.runs import WaitingReason
from detent.protocol.status import RunStatus


@dataclass(frozen=True, slots=True)
class Wait:
    kind: str
    waitpoint_id: UUID
    due_at: datetime | None
    task_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """A bound of a queue, a limit or the environment that a run would have to pass, and that is full."""

    kind: LimitKind
    name: str
    scope: str
    """`total`, `key` or `rate`."""
    concurrency_key: str | None
    allowed: int
    taken: int
    period: float | None
    opens_at: datetime | None
    paused_at: datetime | None
    is_declared: bool
    holders: tuple[UUID, ...]
    """Some of the runs that hold its slots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    status: RunStatus
    task_id: str
    queue: str
    version: str | None
    """The one it is pinned to."""
    due_at: datetime | None
    has_task: bool
    has_live_worker: bool
    is_solo: bool
    waits: tuple[Wait, ...]
    obstacles: tuple[Obstacle, ...]


def why_waiting(facts: Facts) -> WaitingReason | None:
    """Return the reason, or None for a run that executes or is final."""
    match facts.status:
        case RunStatus.PENDING_VERSION:
            return _unknown(facts)
        case RunStatus.DELAYED:
            return _due("DELAYED", "delayed until", facts.due_at)
        case RunStatus.QUEUED if facts.due_at is not None:
            return _due("RETRY", "waits for its next attempt at", facts.due_at)
        case RunStatus.QUEUED if not facts.has_live_worker:
            return _no_worker(facts)
        case RunStatus.QUEUED if facts.obstacles:
            return _stopped(facts.obstacles)
        case RunStatus.QUEUED if facts.is_solo:
            text = "its process died while it was on the CPU; it waits for a process of its own"
            return WaitingReason(code="STARTS_ALONE", text=text)
        case RunStatus.QUEUED:
            text = f'queued in "{facts.queue}" behind others; the next worker with room takes it'
            return WaitingReason(code="QUEUED", text=text, facts={"queue": facts.queue})
        case RunStatus.WAITING:
            return _waits(facts.waits)
        case _:
            return None


def _unknown(facts: Facts) -> WaitingReason:
    """It is PENDING_VERSION: what would it take?"""
    undeclared = [each for each in facts.obstacles if not each.is_declared and each.kind is LimitKind.LIMIT]
    if facts.has_task and undeclared:
        return _stopped(tuple(undeclared))
    if facts.has_task:
        text = f'no worker has declared queue "{facts.queue}"; declare it with queue("{facts.queue}") and start a worker'
        return WaitingReason(code="QUEUE_NOT_DECLARED", text=text, facts={"queue": facts.queue})
    if facts.version is not None:
        text = f'version {facts.version}, to which the run is pinned, has no task "{facts.task_id}" any more; cancel or replay it'
        return WaitingReason(code="TASK_NOT_IN_VERSION", text=text, facts={"task": facts.task_id, "version": facts.version})
    text = f'no worker has registered task "{facts.task_id}"; start one that has it'
    return WaitingReason(code="TASK_NEVER_REGISTERED", text=text, facts={"task": facts.task_id})


def _no_worker(facts: Facts) -> WaitingReason:
    if facts.version is not None:
        text = f'no live worker has version {facts.version}, to which the run is pinned; start one, or replay the run'
        return WaitingReason(code="NO_LIVE_WORKER", text=text, facts={"task": facts.task_id, "version": facts.version})
    text = f'no live worker has task "{facts.task_id}"; start one'
    return WaitingReason(code="NO_LIVE_WORKER", text=text, facts={"task": facts.task_id})


def _stopped(obstacles: tuple[Obstacle, ...]) -> WaitingReason:
    """The first obstacle, those before all that a pause has made: without it nothing else matters."""
    first = min(obstacles, key=lambda obstacle: (obstacle.paused_at is None, obstacle.is_declared))
    code, text, facts = _obstacle(first)
    if len(obstacles) > 1:
        others = [_obstacle(other)[1] for other in obstacles if other is not first]
        text += "; also, " + "; ".join(others[:2])
    return WaitingReason(code=code, text=text, facts=facts)


def _obstacle(obstacle: Obstacle) -> tuple[str, str, dict[str, str]]:
    what = _name(obstacle)
    facts = {obstacle.kind.value: obstacle.name} if obstacle.name else {}
    if obstacle.concurrency_key is not None:
        facts["concurrency_key"] = obstacle.concurrency_key
    if obstacle.scope == "total" and obstacle.paused_at is not None:
        facts["paused_at"] = obstacle.paused_at.isoformat()
        return "PAUSED", f"{what} is paused since {facts['paused_at']}; it goes on when that is resumed", facts
    if obstacle.scope == "total" and not obstacle.is_declared:
        return "LIMIT_NOT_DECLARED", f"no worker has declared {what}; start one whose code does", facts
    facts["allowed"] = str(obstacle.allowed)
    if obstacle.scope == "rate":
        when = obstacle.opens_at.isoformat() if obstacle.opens_at else "soon"
        facts |= {"period": str(obstacle.period), "until": when}
        text = f"{what} lets {obstacle.allowed} runs start in {obstacle.period:g} s, and so many have; the next may at {when}"
        return "RATE_LIMITED", text, facts
    holders = [ids.encode("run", holder) for holder in obstacle.holders]
    facts |= {"taken": str(obstacle.taken), "held_by": ", ".join(holders)}
    text = f"{what} is at {obstacle.taken} of {obstacle.allowed}"
    if holders:
        more = f" and {obstacle.taken - len(holders)} more" if obstacle.taken > len(holders) else ""
        text += f", held by {', '.join(holders)}{more}"
    return "AT_LIMIT", text, facts


def _name(obstacle: Obstacle) -> str:
    if obstacle.kind is LimitKind.ENVIRONMENT:
        return "the environment"
    noun = "queue" if obstacle.kind is LimitKind.QUEUE else "limit"
    key = f' for key "{obstacle.concurrency_key}"' if obstacle.concurrency_key is not None else ""
    return f'{noun} "{obstacle.name}"{key}'


def _due(code: str, words: str, due_at: datetime | None) -> WaitingReason:
    when = due_at.isoformat() if due_at else "an unknown time"
    return WaitingReason(code=code, text=f"{words} {when}", facts={"due_at": when})


def _waits(waits: tuple[Wait, ...]) -> WaitingReason:
    if len(waits) == 0:
        return WaitingReason(code="RESUMING", text="what it waited for is done; it is about to be queued")
    text = "waits for " + ", ".join(_wait_text(wait) for wait in waits[:3])
    if len(waits) > 3:
        text += f" and {len(waits) - 3} more"
    first = waits[0]
    facts = {"count": str(len(waits)), "first": _wait_text(first)}
    return WaitingReason(code=f"WAITS_FOR_{first.kind.upper()}", text=text, facts=facts)


def _wait_text(wait: Wait) -> str:
    match wait.kind:
        case "time":
            return f"{wait.due_at.isoformat()}" if wait.due_at else "a moment"
        case "run":
            return f'run {ids.encode("run", wait.waitpoint_id)} of task "{wait.task_id}"'
        case "token":
            return f"token {ids.encode('waitpoint', wait.waitpoint_id)}"
        case _:
            return f"batch {ids.encode('batch', wait.waitpoint_id)}"
