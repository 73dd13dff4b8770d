"""Triggering from inside a run."""

from __future__ import annotations

from dataclasses import dataclass

from detent.protocol.operations import Origin
from detent.protocol.triggering import Triggered, TriggerRequest
from detent.protocol.waits import Pending, Suspended, WaitResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRequest:
    request: TriggerRequest
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildTriggered:
    """Answer to a trigger from inside a run. `wait`: None when the origin does not wait."""

    triggered: Triggered
    wait: WaitResult | Pending | Suspended | None = None
