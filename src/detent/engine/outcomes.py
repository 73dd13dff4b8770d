"""Rows about how runs ended, as values."""

from __future__ import annotations

from typing import cast
from uuid import UUID

from detent.protocol import ids, run_error
from detent.protocol.ids import RunId
from detent.protocol.run_error import ErrorCode
from detent.protocol.runs import RunOutcome
from detent.protocol.status import RunStatus
from detent.protocol.waits import WaitResult


def child_result(run_id: UUID, task_id: object, status: object, output: object, error: object) -> RunOutcome:
    return RunOutcome(
        run_id=RunId(ids.encode("run", run_id)),
        task_id=str(task_id),
        status=RunStatus(str(status)),
        output=cast("str | None", output),
        error=run_error.from_json(str(error)) if error is not None else None,
    )


def wait_result(
    operation: str, kind: str, waitpoint_id: UUID, task_id: object, status: object, output: object, error: object
) -> WaitResult:
    """Return what a completed waitpoint says to the operation that waited for it."""
    if kind == "run":
        return WaitResult(operation=operation, child=child_result(waitpoint_id, task_id, status, output, error))
    if kind == "token":
        return token_result(operation, output, error)
    failure = run_error.internal(ErrorCode.BATCH_ABORTED, str(error)) if error is not None else None
    return WaitResult(operation=operation, error=failure)


def token_result(operation: str, output: object, error: object) -> WaitResult:
    return WaitResult(
        operation=operation,
        output=cast("str | None", output),
        error=run_error.from_json(str(error)) if error is not None else None,
    )
