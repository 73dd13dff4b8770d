"""A runner without a process, for the parts of a supervisor."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

from detent.protocol import ids
from detent.protocol.ids import SessionId
from detent.worker.child import Child
from detent.worker.children import Children
from detent.worker.control import Message


@dataclass(kw_only=True, eq=False)
class StandIn:
    is_solo: bool = False
    is_spare: bool = False
    is_up: bool = True
    is_alive: bool = True
    is_leaving: bool = False
    has_room: bool = True
    has_process_tasks: bool = False
    generation: int = 0
    pid: int = 0
    session: SessionId = field(default_factory=ids.new_session_id)
    sent: list[Message] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_working(self) -> bool:
        return self.is_up and self.is_alive and not self.is_leaving

    def send(self, message: Message) -> None:
        self.sent.append(message)
        self.heard.set()

    def join(self, children: Children) -> StandIn:
        children.add(cast("Child", self))
        return self
