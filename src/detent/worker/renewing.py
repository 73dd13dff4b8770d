"""Renewing the sessions of runners: a sign of life in their name, from a process that no user code can block."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from detent.errors import ApiConnectionError
from detent.protocol.backend import WorkerBackend
from detent.protocol.sessions import Renewed
from detent.worker.child import Child
from detent.worker.children import Children
from detent.worker.control import AskReport, Cancelled, Lost, Reopen
from detent.worker.solos import Solos
from detent.worker.telling import EventKind, WorkerEvent
from detent.worker.vigil import Vigil

INTERVAL = 5.0
REPORT_SECONDS = 0.25
"""How long a renewal waits for the reports of its runners; one whose loop is blocked is renewed by its last report."""

log = logging.getLogger("detent.worker")


class Renewing:
    """Decides whose session is renewed (that of a runner which lives and is not stopped), and passes on what is answered."""

    def __init__(
        self,
        backend: WorkerBackend,
        children: Children,
        vigil: Vigil,
        solos: Solos,
        *,
        tell: Callable[[WorkerEvent], None],
    ) -> None:
        self._backend, self._children, self._vigil, self._solos, self._tell = backend, children, vigil, solos, tell

    async def renew_forever(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self._renew()
            except ApiConnectionError as error:
                log.warning("sessions cannot be renewed: %s", error)
                self._tell(WorkerEvent(kind=EventKind.DATABASE_AWAY, detail=str(error)))
            except Exception:
                log.exception("sessions cannot be renewed")

    async def _renew(self) -> None:
        renewed = [child for child in self._children.up if not child.is_stopped()]
        if not renewed:
            return
        await self._ask_reports(renewed)
        renewals = {child.session: (child, child.renewal()) for child in renewed if child.is_up}
        sent = {session: dict(child.held) for session, (child, _) in renewals.items()}
        for answer in await self._backend.renew_sessions([renewal for _, renewal in renewals.values()]):
            child, _ = renewals[answer.session_id]
            if child.session == answer.session_id and child.is_alive:
                self._take(child, answer, sent[answer.session_id])
        await self._solos.staff()

    async def _ask_reports(self, children: Sequence[Child]) -> None:
        for child in children:
            child.reported.clear()
            child.send(AskReport())
        try:
            async with asyncio.timeout(REPORT_SECONDS):
                for child in children:
                    await child.reported.wait()
        except TimeoutError:
            pass  # its loop is blocked: what it announced before is enough

    def _take(self, child: Child, answer: Renewed, sent: Mapping[str, int]) -> None:
        if not answer.is_alive:
            child.send(Reopen(session_id=child.new_session()))
            return
        if answer.cancelled:
            self._vigil.cancel(time.monotonic(), answer.cancelled)
            child.send(Cancelled(run_ids=answer.cancelled))
        if answer.lost:
            child.send(Lost(holders=tuple((run_id, sent[run_id]) for run_id in answer.lost if run_id in sent)))
        self._solos.waiting = answer.solo_waiting
