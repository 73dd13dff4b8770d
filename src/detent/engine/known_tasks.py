"""What triggers must know of tasks and versions, as workers registered them: queue, ttl, the schema that payloads must fit."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from detent.engine.db import Db
from detent.errors import SerializationError
from detent.protocol import codec
from detent.protocol.flow import INLINE_PREFIX
from detent.protocol.machines import PRESETS
from detent.protocol.refusal import Refused
from detent.protocol.triggering import TriggerRequest

FRESH_SECONDS = 2.0
UNKNOWN_SECONDS = 0.1
"""So long what nobody has registered is not asked for again: a query for each of its triggers would cost a fifth of them."""
_MOST_ERRORS = 5


class Misfit(Protocol):
    @property
    def message(self) -> str: ...
    @property
    def instance_path(self) -> Sequence[str | int]: ...


class Validator(Protocol):
    def iter_errors(self, instance: object) -> Iterator[Misfit]: ...


class PayloadSchema:
    """What the payloads of a task must fit. Where its JSON Schema has a default, a payload may be missing."""

    def __init__(self, text: str) -> None:
        import jsonschema_rs

        schema = json.loads(text)
        self._validator: Validator = jsonschema_rs.validator_for(schema)
        self._has_default = "default" in schema

    def misfits(self, payload: str | None) -> list[str]:
        """Return what is wrong with a payload, a field at a time."""
        if payload is None and self._has_default:
            return []
        try:
            instance = None if payload is None else codec.decode(payload, what="the payload")
        except SerializationError as error:
            return [str(error)]
        found = itertools.islice(self._validator.iter_errors(instance), _MOST_ERRORS)
        return [f"{'/'.join(map(str, misfit.instance_path)) or 'payload'}: {misfit.message}" for misfit in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTask:
    """A task as its current version has it; one that nobody has registered has a queue of its own and nothing else."""

    task_id: str
    queue: str
    version_id: int | None = None
    ttl: float | None = None
    schema: PayloadSchema | None = None
    machines: tuple[str, ...] = ()
    """Those that its version knows beside the presets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownVersion:
    version_id: int
    task_ids: frozenset[str]


class KnownTasks:
    """Remembers for two seconds: so long may a trigger be judged by the version before. What is unknown is asked for sooner."""

    def __init__(self, db: Db, environment: int) -> None:
        self._db, self._environment = db, environment
        self._tasks: dict[str, tuple[float, KnownTask]] = {}
        self._versions: dict[str, tuple[float, KnownVersion]] = {}
        self._full: dict[str, int] = {}

    async def check(self, requests: Sequence[TriggerRequest], preferred: Iterable[str] = ()) -> dict[int, Refused]:
        """Return a refusal for each request, by its place, that cannot be accepted.

        What is known of the others is fresh afterwards, and so is what is known of the *preferred* versions.
        """
        await self._refresh({request.task_id for request in requests})
        for name in {*preferred, *(request.version for request in requests if request.version)}:
            await self._refresh_version(name)
        refusals = {}
        for i, request in enumerate(requests):
            if refusal := await self._refusal(request):
                refusals[i] = refusal
        return refusals

    def task(self, task_id: str) -> KnownTask:
        found = self._tasks.get(task_id)
        return found[1] if found else KnownTask(task_id=task_id, queue=INLINE_PREFIX + task_id)

    def version(self, name: str | None) -> KnownVersion | None:
        found = self._versions.get(name) if name is not None else None
        return found[1] if found else None

    async def _refusal(self, request: TriggerRequest) -> Refused | None:
        task = self.task(request.task_id)
        queue = request.queue or task.queue
        if queue in self._full:
            message = f'queue "{queue}" is full: {self._full[queue]:,} runs wait in it; trigger again later, or raise its limit'
            return Refused(status=429, code="queue_full", message=message)
        if request.version is not None and (refusal := await self._version_refusal(request)):
            return refusal
        if request.machine is not None and (refusal := _machine_refusal(task, request.machine)):
            return refusal
        if not request.is_validated and task.schema is not None and (misfits := task.schema.misfits(request.payload)):
            return Refused(
                status=422,
                code="invalid_payload",
                message=f'the payload does not fit the schema of task "{request.task_id}"',
                details=tuple(misfits),
            )
        return None

    async def _version_refusal(self, request: TriggerRequest) -> Refused | None:
        known = self.version(request.version)
        if known is None:
            rows = await self._db.call("list_version_names", {"environment": self._environment})
            names = ", ".join(str(name) for (name,) in rows) or "none"
            message = f'no worker has registered version "{request.version}"; the newest versions are: {names}'
            return Refused(status=422, code="unknown_version", message=message)
        if request.task_id not in known.task_ids:
            message = f'version "{request.version}" has no task "{request.task_id}"; name another version, or none'
            return Refused(status=422, code="unknown_task_in_version", message=message)
        return None

    async def _refresh(self, task_ids: set[str]) -> None:
        now = time.monotonic()
        stale = [task_id for task_id in task_ids if self._tasks.get(task_id, (0.0,))[0] < now]
        if not stale:
            return
        rows = await self._db.call("find_tasks", {"environment": self._environment, "tasks": stale})
        self._full = {str(name): cast("int", most) for what, name, most, *_ in rows if what == "full"}
        found = {str(task_id): facts for what, task_id, *facts in rows if what == "task"}
        for task_id in stale:
            known, fresh_for = KnownTask(task_id=task_id, queue=INLINE_PREFIX + task_id), UNKNOWN_SECONDS
            if task_id in found:
                version_id, queue, ttl, schema, machines = found[task_id]
                known = KnownTask(
                    task_id=task_id,
                    queue=str(queue),
                    version_id=cast("int", version_id),
                    ttl=cast("float | None", ttl),
                    schema=PayloadSchema(str(schema)) if schema is not None else None,
                    machines=tuple(cast("list[str]", machines)),
                )
                fresh_for = FRESH_SECONDS
            self._tasks[task_id] = (now + fresh_for, known)

    def forget(self) -> None:
        """Ask anew: what is known has been registered otherwise."""
        self._tasks.clear()
        self._versions.clear()

    async def _refresh_version(self, name: str) -> None:
        now = time.monotonic()
        if self._versions.get(name, (0.0,))[0] >= now:
            return
        self._versions.pop(name, None)
        for version_id, task_ids in await self._db.call("find_version_tasks", {"environment": self._environment, "name": name}):
            known = KnownVersion(version_id=cast("int", version_id), task_ids=frozenset(cast("list[str]", task_ids)))
            self._versions[name] = (now + FRESH_SECONDS, known)


def _machine_refusal(task: KnownTask, machine: str) -> Refused | None:
    known = {*PRESETS, *task.machines}
    if task.version_id is None or machine in known:
        return None
    message = f'task "{task.task_id}" has no machine "{machine}"; known are {", ".join(sorted(known))}'
    return Refused(status=422, code="unknown_machine", message=message)
