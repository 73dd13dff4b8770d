"""Payloads that came by task id, checked against the JSON Schema that the task's newest version registered."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from detent.engine.db import Db
from detent.errors import SerializationError
from detent.protocol import codec
from detent.protocol.models import Refused, TriggerRequest

FRESH_SECONDS = 2.0
_MOST_ERRORS = 5


class Misfit(Protocol):
    @property
    def message(self) -> str: ...
    @property
    def instance_path(self) -> Sequence[str | int]: ...


class Validator(Protocol):
    def iter_errors(self, instance: object) -> Iterator[Misfit]: ...


class Schemas:
    """Remembers validators for two seconds: so long may a trigger by id be judged by the version before."""

    def __init__(self, db: Db, environment: int) -> None:
        self._db, self._environment = db, environment
        self._found: dict[str, tuple[float, Validator | None]] = {}

    async def check(self, requests: Sequence[TriggerRequest]) -> dict[int, Refused]:
        """Return a refusal for each request, by its place, whose payload does not fit."""
        unchecked = [(i, request) for i, request in enumerate(requests) if not request.is_validated]
        if not unchecked:
            return {}
        await self._refresh({request.task_id for _, request in unchecked})
        refusals = {}
        for i, request in unchecked:
            validator = self._found[request.task_id][1]
            if validator is not None and (errors := _errors(validator, request.payload)):
                refusals[i] = Refused(
                    status=422,
                    code="invalid_payload",
                    message=f'the payload does not fit the schema of task "{request.task_id}"',
                    details=tuple(errors),
                )
        return refusals

    async def _refresh(self, task_ids: set[str]) -> None:
        now = time.monotonic()
        stale = [task_id for task_id in task_ids if self._found.get(task_id, (0.0, None))[0] < now]
        if not stale:
            return
        rows = await self._db.call("find_schemas", {"environment": self._environment, "tasks": stale})
        schemas = {str(task_id): schema for task_id, schema in rows}
        for task_id in stale:
            schema = schemas.get(task_id)
            self._found[task_id] = (now + FRESH_SECONDS, _validator(str(schema)) if schema is not None else None)


def _validator(schema: str) -> Validator:
    import jsonschema_rs

    return jsonschema_rs.validator_for(json.loads(schema))


def _errors(validator: Validator, payload: str | None) -> list[str]:
    try:
        instance = None if payload is None else codec.decode(payload, what="the payload")
    except SerializationError as error:
        return [str(error)]
    found = itertools.islice(validator.iter_errors(instance), _MOST_ERRORS)
    return [f"{'/'.join(map(str, misfit.instance_path)) or 'payload'}: {misfit.message}" for misfit in found]
