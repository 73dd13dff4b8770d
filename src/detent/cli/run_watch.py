"""A run as it goes on, for people and for pipes: a line for each change, until it has ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from detent.cli import printing, trigger

if TYPE_CHECKING:
    from detent.cli.calling import Caller
    from detent.protocol.codec import JsonValue
    from detent.sdk.runs import Run

Sleep: TypeAlias = Callable[[float], Awaitable[None]]

LOOK_SECONDS = 0.3


async def watch(caller: Caller, run_id: str, *, as_json: bool, sleep: Sleep = asyncio.sleep) -> int:
    """Print each change of a run until its end, then how it ended; return the exit code that says so."""
    seen: str | None = None
    while True:
        run = await caller.client.runs.retrieve(run_id)
        if (state := _state(run)) != seen:
            seen = state
            print(printing.json_line(run) if as_json else f"{datetime.now().astimezone():%H:%M:%S} {state}", flush=True)
        if run.is_completed:
            return trigger.exit_code(run) if as_json else trigger.show_end(run, as_json=False)
        await sleep(LOOK_SECONDS)


def _state(run: Run[JsonValue]) -> str:
    parts = [run.status.value, f"attempt {run.attempt}" if run.attempt else "", ", ".join(run.tags)]
    if run.waiting_reason:
        parts.append(f"({run.waiting_reason.text})")
    if run.metadata is not None:
        parts.append(json.dumps(run.metadata, ensure_ascii=False))
    return "  ".join(part for part in parts if part)
