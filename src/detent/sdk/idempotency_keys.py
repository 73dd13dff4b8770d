"""`idempotency_keys`: making keys by hand, and forgetting them."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from detent.errors import NotFoundError
from detent.sdk import idempotency
from detent.sdk import scope as run_scope
from detent.sdk.blocking import blocking
from detent.sdk.idempotency import IdempotencyKey, Scope
from detent.sdk.options import check_text
from detent.sdk.target import HERE, Target
from detent.sdk.triggering import Triggerable, task_id_of


class IdempotencyKeys:
    """Keys that make a trigger give the same run again."""

    label = "idempotency_keys"

    def __init__(self, target: Target = HERE) -> None:
        self._target = target
        self.sync = IdempotencyKeysSync(self)

    def create(self, key: str | Sequence[str], scope: Scope = "run") -> IdempotencyKey:
        """Return a key: 64 hex digits that remember their scope. No I/O.

        - `"run"`: the same within the present run, whatever its attempt;
        - `"attempt"`: the same within the present attempt only;
        - `"global"`: the same everywhere. Outside a run every scope is this one.

        Example::

            key = idempotency_keys.create(["order", order.id], scope="global")
            await charge.trigger(order, idempotency_key=key)
        """
        checked = idempotency.checked_scope(scope)
        present = run_scope.current()
        if present is None:
            return idempotency.make(key, checked, run_id=None, attempt=None)
        context = present.context
        return idempotency.make(key, checked, run_id=context.run.id, attempt=context.attempt.number)

    def reset(
        self,
        task_id: Triggerable[Any] | str,
        key: str | Sequence[str],
        *,
        scope: Scope | None = None,
        parent_run_id: str | None = None,
        attempt_number: int | None = None,
    ) -> Coroutine[Any, Any, None]:
        """Forget a key, so that the next trigger makes a new run. Raises `NotFoundError` when there was none.

        The task is given as itself or by its id. *key* is one that `create` returned, or the text it was made of: then with its
        *scope* (default: run-scoped inside a run, global outside), and outside the run also with *parent_run_id* and, for
        `"attempt"`, *attempt_number*.
        """
        named = check_text("a task id", task_id_of(task_id), longest=128)
        return self._reset(named, _key_of(key, scope, parent_run_id, attempt_number))

    async def _reset(self, task_id: str, key: IdempotencyKey) -> None:
        backend = self._target.connection().backend
        if not await backend.reset_idempotency_key(task_id, str(key)):
            raise NotFoundError(
                f'task "{task_id}" has no run under the idempotency key "{key.user_key}" ({key.scope} scope)',
                code="idempotency_key_not_found",
            )


class IdempotencyKeysSync:
    """`idempotency_keys` as blocking calls."""

    def __init__(self, keys: IdempotencyKeys) -> None:
        self.create = keys.create
        self.reset = blocking(keys.reset)


def _key_of(
    key: str | Sequence[str], scope: Scope | None, parent_run_id: str | None, attempt_number: int | None
) -> IdempotencyKey:
    if scope is None and parent_run_id is None:
        return idempotency.of_option(key)
    if isinstance(key, IdempotencyKey):
        return key
    checked = idempotency.checked_scope(scope or "run")
    present = run_scope.current()
    if present is not None and parent_run_id is None:
        parent_run_id = present.context.run.id
        attempt_number = present.context.attempt.number if attempt_number is None else attempt_number
    if checked != "global" and parent_run_id is None:
        raise ValueError(f'a key of scope "{checked}" belongs to a run: give parent_run_id=, the run that made it')
    if checked == "attempt" and attempt_number is None:
        raise ValueError('a key of scope "attempt" belongs to an attempt: give attempt_number=, too')
    return idempotency.make(key, checked, run_id=parent_run_id, attempt=attempt_number)


idempotency_keys = IdempotencyKeys()
