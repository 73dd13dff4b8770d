"""The hooks of a run that is over: called when its end is recorded, so that a death among them never leads back to its code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detent.errors import RunFailedError, TaskPayloadParsedError
from detent.protocol import run_error
from detent.protocol.attempts import Failed, RanOutOfMemory, Succeeded
from detent.protocol.run_error import RunError
from detent.protocol.status import RunStatus
from detent.sdk.hooks import HookKind
from detent.sdk.result import Err, Ok, Result
from detent.worker.hook_calls import HookCalls, hooks_of
from detent.worker.hook_scope import HookScope
from detent.worker.threads import Threads

if TYPE_CHECKING:
    from detent.sdk.definition import AnyTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ended. `raised` is the exception itself, where this process has it."""

    status: RunStatus
    output: str | None = None
    error: RunError | None = None
    raised: BaseException | None = None


def ending_of(outcome: Succeeded | Failed | RanOutOfMemory, status: RunStatus, raised: BaseException | None) -> Ending:
    if isinstance(outcome, Succeeded):
        return Ending(status=status, output=outcome.output)
    return Ending(status=status, error=outcome.error, raised=raised)


class FinalHooks:
    """Calls what belongs to one ending. What a hook raises is a line in the run's log, and the next one is called."""

    def __init__(self, scope: HookScope, task: AnyTask, threads: Threads, ending: Ending) -> None:
        self._scope, self._task, self._ending = scope, task, ending
        self._calls = HookCalls(scope.attempt, task, threads, self._payload())

    async def call(self) -> None:
        """Call the hooks inside of the middleware; where that does not let them begin, without."""
        kinds = _KINDS.get(self._ending.status, (HookKind.ON_FAILURE, HookKind.ON_COMPLETE))
        hooks = [hook for kind in kinds for hook in hooks_of(self._task, kind)]
        if not hooks:
            return
        has_begun = False

        async def call_each() -> None:
            nonlocal has_begun
            has_begun = True
            given = self._given()
            for hook in hooks:
                await self._guard(str(hook), self._calls.call(hook, **given))

        await self._guard("the middleware around final hooks", self._calls.wrapped(call_each))
        if not has_begun:
            await call_each()

    async def _guard(self, what: str, call: Awaitable[object]) -> None:
        try:
            await call
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - a hook may raise anything: the run is over, and its other hooks are due
            told = run_error.from_exception(error)
            self._scope.log("error", f"{what} raised {told}", {"traceback": told.traceback})

    def _payload(self) -> object:
        try:
            return self._task.decode_payload(self._scope.attempt.lease.payload)
        except TaskPayloadParsedError:
            return None  # it is what the run has failed of

    def _given(self) -> dict[str, object]:
        ending = self._ending
        if ending.status is RunStatus.COMPLETED:
            output = self._task.decode_output(ending.output)
            return {"output": output, "result": self._result(output)}
        error = ending.error or run_error.internal("", f"the run is {ending.status}")
        return {"error": ending.raised or self._exception(error), "reason": error.message, "result": self._result(None)}

    def _result(self, output: object) -> Result[object]:
        run_id, task_id = self._scope.attempt.run_id, self._task.id
        if self._ending.error is not None:
            return Err(self._ending.error, id=run_id, task_id=task_id)
        return Ok(output, id=run_id, task_id=task_id)

    def _exception(self, error: RunError) -> RunFailedError:
        status = self._ending.status.value
        return RunFailedError(self._scope.attempt.run_id, status, error.name, error.message, error.code)


_KINDS = {
    RunStatus.COMPLETED: (HookKind.ON_SUCCESS, HookKind.ON_COMPLETE),
    RunStatus.CANCELED: (HookKind.ON_CANCEL,),
}
"""Every other end is a failure."""
