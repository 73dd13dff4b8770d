"""`queues`: reading queues with what goes on in them, pausing them, and changing their limits while workers run."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from detent.sdk import limits
from detent.sdk import queue as declared
from detent.sdk.blocking import blocking
from detent.sdk.concurrency import check_bound
from detent.sdk.limits import Limits
from detent.sdk.page import PageCall
from detent.sdk.queue import Queue
from detent.sdk.target import HERE, Target
from detent.sdk.triggering import Triggerable

if TYPE_CHECKING:
    from detent.protocol.flow import Bound, LimitRecord, LimitRef

NamedQueue: TypeAlias = "Queue | Triggerable[Any] | str"
"""A queue as declared, by its name or its id (`queue_…`); a task stands for its own queue, named `task/<id>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievedQueue:
    """A queue as it was when it was read."""

    id: str
    """`queue_…`."""
    name: str
    type: Literal["task", "custom"]
    """`"task"` for a task's own queue."""
    running: int
    """Runs that hold a slot."""
    queued: int
    """Runs that are ready to start."""
    paused: bool
    concurrency_limit: int | None
    """How many of its runs may execute at once now, those of each `concurrency_key` by themselves; None is no bound."""
    concurrency: Bound
    """The same as declared (`base`) and as overridden."""
    most_queued: int | None
    """How many runs may be ready to start; triggers beyond it are refused. None is no bound."""


def _of_record(record: LimitRecord) -> RetrievedQueue:
    from detent.protocol.flow import INLINE_PREFIX

    return RetrievedQueue(
        id=record.id,
        name=record.name,
        type="task" if record.name.startswith(INLINE_PREFIX) else "custom",
        running=record.running,
        queued=record.queued,
        paused=record.paused_at is not None,
        concurrency_limit=record.per_key.current,
        concurrency=record.per_key,
        most_queued=record.most_queued,
    )


class Queues:
    """The queues that workers have registered, and those that runs were sent to.

    Every method takes a `Queue`, a name, an id, or a task for its own queue. Each raises `TypeError` or `ValueError` for what
    names none, `NotFoundError` for a queue that is not there, and `ApiConnectionError` when the database is out of reach.
    """

    label = "queues"

    def __init__(self, target: Target = HERE) -> None:
        self._limits = Limits(target, "queue", _of_record)
        self.sync = QueuesSync(self)

    def list(self, *, page: int = 1, per_page: int = 25) -> PageCall[RetrievedQueue]:
        """Return queues by name: a page of at most *per_page* (1 to 100), or with `async for` that and all that follow.

        Example::

            async for queue in queues.list():
                print(queue.name, queue.running, queue.queued)
        """
        limits.check_page(page, per_page)
        return PageCall(self._limits.page(page, per_page), "queues.list")

    def retrieve(self, queue: NamedQueue) -> Coroutine[Any, Any, RetrievedQueue]:
        """Return a queue as it stands.

        Example::

            print((await queues.retrieve("emails")).queued)
        """
        return self._limits.retrieve(self._ref(queue))

    def pause(self, queue: NamedQueue) -> Coroutine[Any, Any, RetrievedQueue]:
        """Start none of its runs any more. Those that execute go on, triggers are accepted, a `ttl` goes on.

        Example::

            await queues.pause(send_email)
        """
        return self._limits.pause(self._ref(queue))

    def resume(self, queue: NamedQueue) -> Coroutine[Any, Any, RetrievedQueue]:
        """Undo a pause."""
        return self._limits.resume(self._ref(queue))

    def override_concurrency_limit(
        self, queue: NamedQueue, concurrency_limit: int | None
    ) -> Coroutine[Any, Any, RetrievedQueue]:
        """Put another limit in the place of the declared one until it is reset, also over deploys. None takes it away.

        Example::

            await queues.override_concurrency_limit("emails", 20)

        Runs that execute beyond the new limit go on. Raises `ValueError` for a limit that is no whole number of 0 or more.
        """
        from detent.protocol.flow import Override

        bound = check_bound("concurrency_limit", concurrency_limit)
        return self._limits.change(Override(ref=self._ref(queue), per_key=bound))

    def reset_concurrency_limit(self, queue: NamedQueue) -> Coroutine[Any, Any, RetrievedQueue]:
        """Go back to the declared limit. Raises an `ApiError` when nothing is overridden."""
        return self._limits.reset(self._ref(queue))

    def _ref(self, queue: object) -> LimitRef:
        from detent.protocol.flow import INLINE_PREFIX

        if isinstance(queue, Triggerable):
            return self._limits.ref(f"{INLINE_PREFIX}{queue.id}")
        return self._limits.ref(declared.name_of(queue))


class QueuesSync:
    """`queues` as blocking calls."""

    def __init__(self, queues: Queues) -> None:
        self.list = blocking(queues.list)
        self.retrieve = blocking(queues.retrieve)
        self.pause = blocking(queues.pause)
        self.resume = blocking(queues.resume)
        self.override_concurrency_limit = blocking(queues.override_concurrency_limit)
        self.reset_concurrency_limit = blocking(queues.reset_concurrency_limit)


queues = Queues()
