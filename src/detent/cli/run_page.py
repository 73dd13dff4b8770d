"""A run, with all that is known of it, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from detent.cli import printing

if TYPE_CHECKING:
    from detent.protocol.codec import JsonValue
    from detent.protocol.runs import AttemptRecord
    from detent.sdk.runs import Run

_LABEL_WIDTH = 13


def show(run: Run[JsonValue]) -> None:
    """Print a run: its facts line by line, then its input and result."""
    for label, text in _facts(run):
        if text:
            print(f"{label:<{_LABEL_WIDTH}}{text}")
    for attempt in run.attempts:
        if attempt.number < run.attempt:
            print(f"{f'attempt {attempt.number}':<{_LABEL_WIDTH}}{_attempt(attempt)}")
    for label, value in (("payload", run.payload), ("metadata", run.metadata), ("output", run.output)):
        if value is not None:
            print(f"{label:<{_LABEL_WIDTH}}{json.dumps(value, ensure_ascii=False)}")
    if run.error is not None:
        print(f"{'error':<{_LABEL_WIDTH}}{run.error}")
        print(run.error.traceback)


def _facts(run: Run[JsonValue]) -> Iterator[tuple[str, str]]:
    yield "run", run.id
    yield "task", run.task_id
    yield "status", run.status.value + (f" ({run.waiting_reason.text})" if run.waiting_reason else "")
    yield "attempt", str(run.attempt) + (f" of {run.max_attempts}" if run.max_attempts else "")
    yield "created", f"{run.created_at.astimezone():%Y-%m-%d %H:%M:%S} ({printing.ago(run.created_at)})"
    if run.started_at and run.finished_at:
        yield "duration", printing.seconds(run.finished_at - run.started_at)
    yield "usage", printing.seconds(run.usage_duration or None)
    yield "machine", run.machine or ""
    yield "waits", str(run.waits or "")
    yield "losses", str(run.losses or "")
    yield "expires", printing.ago(run.expires_at)
    yield "queue", run.queue
    yield "key", run.concurrency_key or ""
    yield "limits", "" if run.limits is None else ", ".join(run.limits) or "none"
    yield "priority", f"{run.priority:g}" if run.priority else ""
    yield "tags", ", ".join(run.tags)
    yield "version", run.version or ""
    yield "parent", run.parent_run_id or ""
    yield "batch", run.batch_id or ""
    yield "replay of", run.replay_of or ""


def _attempt(attempt: AttemptRecord) -> str:
    took = attempt.finished_at - attempt.started_at if attempt.started_at and attempt.finished_at else None
    return f"failed after {printing.seconds(took)}: {attempt.error}" if took else f"failed: {attempt.error}"
