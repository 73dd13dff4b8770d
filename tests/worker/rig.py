"""A runner inside the test's own process, on a real database, with the supervisor's part played by hand."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

from detent.engine.backend import EngineBackend
from detent.protocol import ids
from detent.protocol.fence import Holder
from detent.protocol.ids import RunId, SessionId
from detent.protocol.runs import RunOutcome, RunRecord
from detent.protocol.sessions import Renewal, Renewed
from detent.protocol.triggering import Triggered, TriggerRequest
from detent.worker.control import AskReport, Happened, Message, Report, Work
from detent.worker.note import Note
from detent.worker.runner import Runner
from detent.worker.telling import EventKind
from tests.database import Clock

PATIENCE = 20.0


@dataclass
class Supervision:
    """What the runner said, and a way to wait until it has said something."""

    said: list[Message] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, message: Message, /) -> None:
        self.said.append(message)
        self.news.set()

    async def flushed(self) -> None:
        return

    async def until(self, kind: type[Message], *, count: int = 1) -> Message:
        async with asyncio.timeout(PATIENCE):
            while len(found := [message for message in self.said if isinstance(message, kind)]) < count:
                self.news.clear()
                await self.news.wait()
        return found[count - 1]


class Rig:
    def __init__(
        self,
        runner: Runner,
        backend: EngineBackend,
        session: SessionId,
        supervision: Supervision,
        note: Note,
        clock: Clock,
    ) -> None:
        self.runner, self.backend, self.session = runner, backend, session
        self.supervision, self.note, self.clock = supervision, note, clock

    async def trigger(self, task_id: str, payload: object = None, **options: object) -> RunId:
        request = TriggerRequest(
            run_id=ids.new_run_id(),
            task_id=task_id,
            payload=None if payload is None else json.dumps(payload),
            is_watched=True,
            **options,  # type: ignore[arg-type]
        )
        (answer,) = await self.backend.trigger([request])
        assert isinstance(answer, Triggered)
        self.runner.receive(Work())
        return answer.run_id

    async def end_of(self, run_id: RunId) -> RunOutcome:
        """Return how a run ended, as its end is announced."""
        async with asyncio.timeout(PATIENCE), self.backend.listen() as wakes:
            (outcome,) = await self.backend.watch_runs([run_id])
            while outcome is None:
                await anext(wakes)
                (outcome,) = await self.backend.watch_runs([run_id])
        return outcome

    async def run(self, task_id: str, payload: object = None, **options: object) -> RunOutcome:
        return await self.end_of(await self.trigger(task_id, payload, **options))

    async def record(self, run_id: RunId) -> RunRecord:
        (record,) = await self.backend.retrieve_runs([run_id])
        assert record is not None
        return record

    async def saw(self, run_id: RunId, kind: EventKind, *, times: int = 1) -> None:
        """Return once the runner has told that this befell the run, so many times."""
        async with asyncio.timeout(PATIENCE):
            while sum(event[:2] == (kind.value, run_id) for event in self._events()) < times:
                self.supervision.news.clear()
                await self.supervision.news.wait()

    def _events(self) -> list[tuple[str, str, str, int, float, str]]:
        return [event for message in self.supervision.said if isinstance(message, Happened) for event in message.events]

    async def messages_of(self, run_id: RunId) -> list[str]:
        return [line.message for line in await self.backend.read_logs(run_id)]

    async def renew(self) -> Renewed:
        """Renew as the supervisor does: by what the runner reports."""
        count = sum(isinstance(message, Report) for message in self.supervision.said)
        self.runner.receive(AskReport())
        report = await self.supervision.until(Report, count=count + 1)
        assert isinstance(report, Report)
        held = tuple(Holder(run_id=RunId(run_id), fence=fence) for run_id, fence in report.held)
        (renewed,) = await self.backend.renew_sessions(
            [Renewal(session_id=self.session, held=held, in_flight=report.in_flight)]
        )
        return renewed
