"""Why a run is not running: computed from its state, in words and as a code with facts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from detent.protocol import ids
from detent.protocol.models import WaitingReason
from detent.protocol.status import RunStatus


@dataclass(frozen=True, slots=True)
class Wait:
    kind: str
    waitpoint_id: UUID
    due_at: datetime | None
    task_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    status: RunStatus
    task_id: str
    queue: str
    due_at: datetime | None
    has_live_worker: bool
    is_solo: bool
    waits: tuple[Wait, ...]


def why_waiting(facts: Facts) -> WaitingReason | None:
    """Return the reason, or None for a run that executes or is final."""
    match facts.status:
        case RunStatus.PENDING_VERSION:
            text = f'no worker has registered task "{facts.task_id}"; start one that has it'
            return WaitingReason(code="TASK_NEVER_REGISTERED", text=text, facts={"task": facts.task_id})
        case RunStatus.DELAYED:
            return _due("DELAYED", "delayed until", facts.due_at)
        case RunStatus.QUEUED if facts.due_at is not None:
            return _due("RETRY", "waits for its next attempt at", facts.due_at)
        case RunStatus.QUEUED if not facts.has_live_worker:
            text = f'no live worker has task "{facts.task_id}"; start one'
            return WaitingReason(code="NO_LIVE_WORKER", text=text, facts={"task": facts.task_id})
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
