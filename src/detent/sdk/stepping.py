"""Taking a step: what its calls and decorators, async and blocking, have in common."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from detent.errors import (
    AbortTaskRunError,
    BlockingCallError,
    DefinitionError,
    JournalFullError,
    NonDeterminismError,
    RunCancelledError,
    SerializationError,
    StaleRunError,
)
from detent.protocol import run_error
from detent.protocol.retry import Retry
from detent.sdk import fingerprint, schema
from detent.sdk import scope as run_scope
from detent.sdk.blocking import Errands, carry_out, is_on_loop
from detent.sdk.returned import Returned

if TYPE_CHECKING:
    from detent.sdk.scope import RunScope

R = TypeVar("R")

ONCE = Retry(max_attempts=1)
NEVER_RETRIED = (AbortTaskRunError, JournalFullError, NonDeterminismError, RunCancelledError, StaleRunError)
"""The task wants to end, or the run has been taken from it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Body:
    """A function under the name of a step."""

    name: str
    fn: Callable[..., object]
    returned: Returned
    retry: Retry = ONCE

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.fn) or inspect.iscoroutinefunction(type(self.fn).__call__)

    def begin(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Coroutine[object, None, object]:
        """Return the step, to be awaited; outside a run, the call of the function."""
        present = run_scope.current()
        work = partial(self.fn, *args, **kwargs)
        coroutine = _settled(work) if present is None else self._take(present, work)
        setattr(coroutine, "__qualname__", f'step "{self.name}"')  # noqa: B010 - what Python's "was never awaited" says
        return coroutine

    def do(self, args: tuple[object, ...], kwargs: Mapping[str, object], *, call: str, instead: str) -> object:
        """Take the step and return its result; outside a run, call the function.

        Raises `BlockingCallError`, in which *call* should have been *instead*, where that would stop an event loop.
        """
        present = run_scope.current()
        work = partial(self.fn, *args, **kwargs)
        if present is None and not self.is_async:
            return work()
        if is_on_loop():
            raise BlockingCallError(call, instead)
        if present is None:
            return carry_out(_settled(work))
        errands = Errands()
        return carry_out(self._take(present, work, errands), errands)

    async def _take(self, present: RunScope, work: partial[object], errands: Errands | None = None) -> object:
        values = self._values()

        async def execute() -> str | None:
            return self._encoded(values, await self._tried(present, work, errands))

        text = await present.step(self.name, fingerprint.of(work.args, work.keywords), execute)
        return self._decoded(values, text)

    async def _tried(self, present: RunScope, work: Callable[[], object], errands: Errands | None) -> object:
        from asyncio import sleep

        number = 1
        while True:
            try:
                return await self._once(work, errands)
            except NEVER_RETRIED:
                raise
            except Exception as error:
                if number >= self.retry.max_attempts:
                    raise
                delay = self.retry.delay_after(number).total_seconds()
                message = (
                    f'step "{self.name}" failed and is tried again in {delay:g} s: {run_error.from_exception(error)}'
                )
            present.log("warn", message, {"try": number})
            await sleep(delay)
            number += 1

    async def _once(self, work: Callable[[], object], errands: Errands | None) -> object:
        if self.is_async:
            return await _settled(work)
        # A plain function would stop the loop: it belongs in the thread that waits for it, else in one of the loop's.
        if errands is not None:
            return await _settled(lambda: errands.do(partial(_carriable, work)))
        from asyncio import to_thread

        return await _settled(lambda: to_thread(_carriable, work))

    def _values(self) -> schema.Schema:
        try:
            return self.returned.values
        except DefinitionError as error:
            raise DefinitionError(f'step "{self.name}": {error}') from error

    def _encoded(self, values: schema.Schema, value: object) -> str | None:
        if value is None and values is schema.PLAIN:
            return None
        what = f'the result of step "{self.name}"'
        try:
            return values.encode(value, what=what)
        except schema.MismatchError as error:
            raise SerializationError(what, f"it does not fit the return annotation: {error}") from error

    def _decoded(self, values: schema.Schema, text: str | None) -> object:
        if text is None:
            return None
        try:
            return values.decode(text)
        except schema.MismatchError as error:
            what = f'the recorded result of step "{self.name}"'
            raise SerializationError(what, f"it does not fit the return annotation: {error}") from error


async def _settled(work: Callable[[], object]) -> object:
    """Return what *work* comes to: a function may be `async def`, or a lambda that calls one."""
    value = work()
    while isinstance(value, Awaitable):
        value = await value
    return value


def _carriable(work: Callable[[], R]) -> R:
    """Call *work* so that what it raises can leave its thread: no future can hold a `StopIteration`."""
    try:
        return work()
    except StopIteration as error:
        raise RuntimeError("the step raised StopIteration") from error
