"""Processes for single runs: those that must start alone, and those of tasks that always want a process of their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Protocol

from detent.protocol.sessions import SessionEnded
from detent.worker import cgroups
from detent.worker.cgroups import Cgroups
from detent.worker.children import Children

START_SECONDS = 1.0
"""By which a process is started before its run may start."""

log = logging.getLogger("detent.worker")


class StartSolo(Protocol):
    async def __call__(self, *, is_spare: bool) -> object:
        """Start a process that executes one run; from the call on it is among the children. Raises `OSError`."""
        ...


class Solos:
    """Decides when a process for a single run is started: for each run that waits for one, and one more where tasks want it.

    `limit` says how many there may be at present.
    """

    def __init__(
        self,
        children: Children,
        start: StartSolo,
        *,
        limit: Callable[[], int],
        spawn: Callable[[Awaitable[None]], None],
    ) -> None:
        self._children, self._start, self._limit, self._spawn = children, start, limit, spawn
        self.waiting = 0
        """Runs that wait for such a process, as the database or the end of a runner told last."""
        self._has_said_what_holds = False

    @cached_property
    def groups(self) -> Cgroups | None:
        """Where runs are held to their machines. Looked for when the first process is started."""
        return cgroups.find()

    def expect(self, ended: SessionEnded) -> None:
        """Have a process ready for each run that must start alone, by the time it may."""
        for pause in ended.alone:
            asyncio.get_running_loop().call_later(max(0.0, pause - START_SECONDS), self._expect_one)

    def _expect_one(self) -> None:
        self.waiting += 1
        self.staff_soon()

    def take_busy(self) -> None:
        """One of them has its run."""
        self.waiting = max(0, self.waiting - 1)
        self.staff_soon()

    def staff_soon(self) -> None:
        self._spawn(self.staff())

    async def staff(self) -> None:
        """Start those that are lacking, as far as can be; the next renewal sees to the others."""
        try:
            # Looked at anew after each: others staff meanwhile.
            while self._has_place() and (self._lacks_spare() or self._lacks_one()):
                await self._start(is_spare=self._lacks_spare())
        except OSError as error:
            log.error("a process for a run that must be alone cannot be started; trying again: %s", error)

    def _has_place(self) -> bool:
        return len(self._children.solos) < self._limit()

    def _lacks_spare(self) -> bool:
        return self._children.has_process_tasks and not any(
            child.is_spare and child.has_room for child in self._children.solos
        )

    def _lacks_one(self) -> bool:
        return self.waiting > sum(child.has_room for child in self._children.solos)

    def say_what_holds(self) -> None:
        """Log once by what runs are held to their machines."""
        if self._has_said_what_holds:
            return
        self._has_said_what_holds = True
        if self.groups is not None:
            log.info("runs are held to the memory and CPU of their machines by cgroups in %s", self.groups.folder)
            return
        log.warning(
            "runs are held to the memory of their machines by rlimits, each process by itself, and CPU is not limited, "
            "as this worker may not make cgroups; give it a folder of cgroup v2 to itself, with the controllers cpu and memory "
            "(systemd: Delegate=yes)"
        )
