"""Giving a run's code what it asked for: one answer at a time, and in a replay in the order of before.

Code that awaits several things at once sees which came first. So the next answer is given only when the code has come to rest
after the one before, live as in a replay, and the journal keeps the order. The first turns of the loop after an answer belong to
it: futures wake tasks, tasks end groups, groups wake their parents, a turn each.

A process that is slow, or was stopped, may find that a timer of the code is over before it has given what was given before. So
in a replay no timer ends until the code is at rest and nothing can be given to it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from detent.worker.journal import ABANDONED, FAILED, Journal

A = TypeVar("A")

QUIET_TURNS = 4
"""Turns of the loop without a step of the run's tasks after which it has come to rest."""
PATIENCE = 15.0
"""Seconds for which a replay holds an answer back when the code, at rest, does not ask for what it asked for before."""


class Answers(Generic[A]):
    """The operations of one attempt that have no answer yet. `turns` counts the steps of the run's tasks.

    `abandon` is asked to make the code give up an operation as it did before: it ends a timer, and says whether there was one.
    """

    __slots__ = (
        "_abandon",
        "_arrived",
        "_is_settling",
        "_journal",
        "_late",
        "_loop",
        "_order",
        "_outstanding",
        "_patience",
        "_turns",
    )

    def __init__(
        self,
        journal: Journal,
        loop: asyncio.AbstractEventLoop,
        *,
        turns: Callable[[], int],
        abandon: Callable[[str], bool],
    ) -> None:
        self._journal, self._loop, self._turns, self._abandon = journal, loop, turns, abandon
        self._outstanding: dict[str, asyncio.Future[A]] = {}
        self._arrived: dict[str, A | BaseException] = {}
        self._order: deque[str] | None = None
        self._late: list[Callable[[], None]] = []  # a deque takes 700 bytes, which each waiting run would hold
        self._is_settling = False
        self._patience: asyncio.TimerHandle | None = None

    @property
    def is_resting(self) -> bool:
        """Whether nothing is about to be given to the code, and nothing was just now."""
        return not self._is_settling and not self._arrived

    def __len__(self) -> int:
        return len(self._outstanding)

    def has(self, operation: str) -> bool:
        """Whether the answer has arrived, given or not."""
        future = self._outstanding.get(operation)
        return operation in self._arrived or future is None or future.done()

    def expect(self, operation: str) -> None:
        """The code asks for *operation*; from now on its answer may arrive."""
        self._outstanding[operation] = self._loop.create_future()
        self._go_on()

    def arrive(self, operation: str, answer: A | BaseException) -> None:
        """Here is an answer. One that nobody expects any more is dropped; so is a second one."""
        future = self._outstanding.get(operation)
        if future is None or future.done() or operation in self._arrived:
            return
        if len(self._outstanding) == 1 and not self._is_settling and not self._journal.is_replaying:
            self._give(operation, future, answer)
            return
        self._arrived[operation] = answer
        if self._order is None:
            self._order = deque()
        self._order.append(operation)
        self._pump()

    async def get(self, operation: str) -> A:
        """Return the answer when its turn has come."""
        return await self._outstanding[operation]

    def give_up(self, operation: str) -> None:
        """The code was made to give up waiting: its replay shall do so at the same place."""
        self._journal.give_up(operation)
        self.forget(operation)
        self._go_on()

    def forget(self, operation: str) -> None:
        """The code expects no answer."""
        self._outstanding.pop(operation, None)
        self._arrived.pop(operation, None)

    def at_rest(self, happen: Callable[[], None]) -> None:
        """Let something happen as soon as the code is at rest and no answer can be given to it."""
        self._late.append(happen)
        if not self._is_settling:
            self._settle()

    def refuse(self, error: BaseException) -> None:
        """Give everybody *error* at once, and nothing that has arrived."""
        self._arrived.clear()
        for future in list(self._outstanding.values()):
            if not future.done():
                future.set_exception(error)
                future.exception()  # what a thread that is gone left behind is not worth a warning

    # ---- one at a time ----

    def _go_on(self) -> None:
        """Give what waited for this, be it the last thing that was recorded."""
        if self._arrived or self._journal.is_replaying:
            self._pump()

    def _give(self, operation: str, future: asyncio.Future[A], answer: A | BaseException) -> None:
        self._journal.give(operation)
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _pump(self) -> None:
        if self._is_settling:
            return
        operation = self._next()
        if operation is not None:
            is_alone = len(self._outstanding) == 1 and not self._late
            self._give(operation, self._outstanding[operation], self._arrived.pop(operation))
            if not is_alone:
                self._settle()
        elif self._late and not self._is_settling:
            self._late.pop(0)()
            self._settle()

    def _next(self) -> str | None:
        """Return the operation whose answer is to be given now, if there is one."""
        while (recorded := self._journal.next_answer) is not None:
            if recorded.startswith(FAILED):
                self._journal.skip()
                continue
            if not self._journal.is_due:
                self._be_patient()
                return None
            if recorded in self._arrived:
                return recorded
            if recorded.removeprefix(ABANDONED) in self._outstanding:
                if recorded.startswith(ABANDONED):
                    self._settle()  # at rest, it is made to give up
                return None
            # Everything was asked for that came before it, but for this.
            self._journal.skip()
        if self._order and not self._journal.is_due:
            self._be_patient()
            return None
        while self._order:
            operation = self._order.popleft()
            if operation in self._arrived:
                return operation
        return None

    def _settle(self) -> None:
        self._is_settling = True
        self._watch(self._turns(), 0)

    def _watch(self, turns: int, quiet: int) -> None:
        if quiet < QUIET_TURNS:
            now = self._turns()
            self._loop.call_soon(self._watch, now, quiet + 1 if now == turns else 0, context=_NO_RUN)
            return
        self._is_settling = False
        recorded = self._journal.next_answer
        if (
            recorded is not None
            and recorded.startswith(ABANDONED)
            and recorded.removeprefix(ABANDONED) in self._outstanding
        ):
            self._give_up(recorded)
        else:
            self._pump()

    def _give_up(self, recorded: str) -> None:
        if self._abandon(recorded.removeprefix(ABANDONED)):
            # What it moves gives up soon, or when the run has its slot again; if it was another's, the next is ended.
            self._settle()
        else:
            # What made it give up was no timer: it is waited for as if it had not.
            self._journal.skip()
            self._pump()

    def _be_patient(self) -> None:
        if self._patience is None:
            turns = self._turns()
            self._patience = self._loop.call_later(PATIENCE, self._lose_patience, turns, context=_NO_RUN)

    def _lose_patience(self, turns: int) -> None:
        self._patience = None
        if not self._outstanding:
            return
        if not self._journal.is_due and self._turns() == turns:
            self._journal.waive()
        self._pump()


_NO_RUN = contextvars.Context()
