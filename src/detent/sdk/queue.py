"""`queue`: declaring where the runs of several tasks stand in one order."""

from __future__ import annotations

import re
from dataclasses import dataclass

from detent.errors import DefinitionError
from detent.sdk import source
from detent.sdk.concurrency import check_bound
from detent.sdk.declarations import declarations

RESERVED_PREFIX = "limit/"
LONGEST_TASK_ID = 128
_NAME = re.compile(r"[A-Za-z0-9_/-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue, as `queue` returns it. Code names it by this, or by its `name`."""

    name: str
    concurrency_limit: int | None = None
    most_queued: int | None = None


def queue(name: str, *, concurrency_limit: int | None = None, most_queued: int | None = None) -> Queue:
    """Declare a queue that tasks share: their runs start in the order in which they were triggered.

    Example::

        emails = queue("emails", concurrency_limit=5)

        @task(queue=emails)
        async def send(to: str) -> None: ...

    *concurrency_limit* is how many of its runs execute at once: of those of each `concurrency_key` by themselves, and of those
    without a key together. 0 starts none; default: no bound. *most_queued* is how many runs may be ready to start: triggers
    beyond it are refused, about, for producers do not wait for each other. Default: no bound.

    A name has 1 to 128 letters, digits, `_`, `-` and `/`. Raises `DefinitionError` for a bad one, and `DuplicateLimitError` when
    it is declared elsewhere with other bounds.
    """
    from detent.protocol.flow import LimitDeclaration, LimitKind

    origin = source.of_caller()
    try:
        declared = Queue(
            name=_check_new(name),
            concurrency_limit=check_bound("concurrency_limit", concurrency_limit),
            most_queued=check_bound("most_queued", most_queued),
        )
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"queue({name!r}) in {origin.place}: {error}") from error
    limit = LimitDeclaration(kind=LimitKind.QUEUE, name=name, per_key=concurrency_limit, most_queued=most_queued)
    declarations.add(limit, origin)
    return declared


def name_of(queue: object) -> str:
    """Return the name of a queue that is given by name or as declared. Raises `TypeError` and `ValueError`."""
    return queue.name if isinstance(queue, Queue) else _check_name(queue)


def _check_new(name: object) -> str:
    from detent.protocol.flow import INLINE_PREFIX

    checked = _check_name(name)
    if checked.startswith(INLINE_PREFIX):
        raise ValueError(f'names that begin with "{INLINE_PREFIX}" are those of the tasks\' own queues; take another')
    return checked


def _check_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is no queue: give a queue() or its name")
    if _is_of_a_task(name):
        return name
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a queue: 1 to 128 letters, digits, _, - and / make one")
    if name.startswith(RESERVED_PREFIX):
        raise ValueError(f'names that begin with "{RESERVED_PREFIX}" are kept for concurrency limits; take another')
    return name


def _is_of_a_task(name: str) -> bool:
    """Whether it is a task's own queue, in whose name stands whatever a task's id may hold."""
    from detent.protocol.flow import INLINE_PREFIX

    task_id = name.removeprefix(INLINE_PREFIX)
    return task_id != name and len(task_id) <= LONGEST_TASK_ID and task_id.isprintable()
