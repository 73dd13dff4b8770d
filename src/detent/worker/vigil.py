"""Watching runners from outside, by the note they share: stopped, blocked, or out of time with nobody inside to say so."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from detent.worker.child import Child
from detent.worker.note import Noted
from detent.worker.reaper import LEASE

STUCK = 1.0
"""Seconds without a turn of the loop from which on a runner counts as stuck."""
MARGIN = 0.25
"""What an overdue run is given beyond its deadline: its own runner may be about to end it."""
IGNORED = 5.0
"""Seconds for which a cancelled run may keep the loop from turning; nobody inside can tell it."""
MOST_CANCELLED = 10_000
AWAY = 2.0
"""A look that comes so late says nothing about the runners: this process was stopped itself."""


class Kill(Protocol):
    def __call__(self, child: Child, why: str) -> None: ...


class Vigil:
    def __init__(
        self,
        *,
        kill: Kill,
        time_out: Callable[[Child, Sequence[Noted]], None],
        blocking: Callable[[Child, Sequence[Noted], float], None],
    ) -> None:
        self._kill, self._time_out, self._blocking = kill, time_out, blocking
        self._last: float | None = None
        self._stuck: set[int] = set()
        self._cancelled: dict[str, float] = {}

    def cancel(self, now: float, run_ids: Iterable[str]) -> None:
        """These runs were asked to stop, wherever they are."""
        for run_id in run_ids:
            self._cancelled.setdefault(run_id, now)
        for run_id in list(itertools.islice(self._cancelled, max(0, len(self._cancelled) - MOST_CANCELLED))):
            del self._cancelled[run_id]

    def is_stuck(self, child: Child) -> bool:
        return child.pid in self._stuck

    def look(self, now: float, children: Sequence[Child]) -> None:
        was_away = self._last is None or now - self._last > AWAY
        self._last = now
        self._stuck.clear()
        for child in children:
            tick = child.note.tick
            if was_away or tick != child.watched.tick:
                child.watched.tick, child.watched.moved_at = tick, now
                child.watched.stopped_at, child.watched.told_at = None, 0.0
            elif now - child.watched.moved_at >= STUCK:
                self._stuck.add(child.pid)
                self._examine(now, child)

    def _examine(self, now: float, child: Child) -> None:
        if child.is_stopped():
            self._watch_stopped(now, child)
            return
        child.watched.stopped_at = None
        noted = _culprits(child)
        overdue = [run for run in noted if run.deadline is not None and now > run.deadline + MARGIN]
        if overdue and not child.watched.is_condemned:
            child.watched.is_condemned = True
            self._time_out(child, overdue)
        elif run := next((run for run in noted if self._ignores_cancel(now, child, run)), None):
            self._kill(child, f"run {run.run_id} was cancelled and holds the interpreter")
        self._tell_blocking(child, noted, now - child.watched.moved_at)

    def _ignores_cancel(self, now: float, child: Child, run: Noted) -> bool:
        since = self._cancelled.get(run.run_id)
        return since is not None and now - max(since, child.watched.moved_at) > IGNORED

    def _watch_stopped(self, now: float, child: Child) -> None:
        since = child.watched.stopped_at
        if since is None:
            child.watched.stopped_at = now
        elif now - since > LEASE:
            self._kill(child, f"it was stopped by a signal for more than {LEASE:g} s")

    def _tell_blocking(self, child: Child, noted: Sequence[Noted], seconds: float) -> None:
        """Name who keeps the loop, after 1 s, 2 s, 4 s …"""
        if noted and seconds >= max(STUCK, 2 * child.watched.told_at):
            child.watched.told_at = seconds
            self._blocking(child, noted, seconds)


def _culprits(child: Child) -> list[Noted]:
    """Return who keeps the loop from turning: the run that it executes, else threads, one of which holds the interpreter."""
    run = child.note.on_loop()
    return child.note.in_threads() if run is None else [run]
