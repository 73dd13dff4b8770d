"""The metadata of a run while its code runs: a copy that changes at once, and updates on their way to the database.

The copy is what was stored as the attempt began, or as of the latest answer of the database, with the run's own updates since. An
update that the code of an earlier process has asked for at the same place is in it already, and is not made again.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import cast

from detent.errors import DetentError, MetadataTooLargeError
from detent.protocol import codec, metadata
from detent.protocol.fence import Stale
from detent.protocol.limits import METADATA_LIMIT
from detent.protocol.metadata import (
    Document,
    MetadataKind,
    MetadataOperation,
    MetadataTarget,
    MetadataUpdate,
    MetadataUpdated,
    PlacedOperation,
)
from detent.worker.attempt import Attempt
from detent.worker.durable_calls import DurableCalls
from detent.worker.path import Path

FLUSH_EVERY = 0.2
"""Seconds between two flushes of one run, at least."""
GATHER = 0.02
"""Seconds for which updates after a quiet time gather."""
_MERGED = frozenset({MetadataKind.SET, MetadataKind.INCREMENT})
_PUNCTUATION = 32

log = logging.getLogger("detent.worker")


class RunMetadata:
    """May be read and updated from any thread; sends on the loop, one call at a time."""

    def __init__(
        self, attempt: Attempt, calls: DurableCalls, loop: asyncio.AbstractEventLoop, path: Callable[[], Path]
    ) -> None:
        self._attempt, self._calls, self._loop, self._path = attempt, calls, loop, path
        self._lock = threading.Lock()
        self._applied = _applied_in(attempt)
        self._document: Document = {}
        self._most = 0
        """Bytes of the document, at most: it is measured only when it may be too large."""
        self._keep(attempt.lease.metadata or "{}")
        self._pending: list[PlacedOperation] = []
        self._made = self._sent = 0
        self._sent_at = float("-inf")
        self._is_scheduled = False
        self._sending: asyncio.Task[None] | None = None

    def read(self, key: str) -> codec.JsonValue:
        """Return a copy of what is at a key or path."""
        return copy.deepcopy(metadata.find(self._document, metadata.to_path(key)))

    def read_all(self) -> Document:
        return copy.deepcopy(self._document)

    def update(self, operation: MetadataOperation) -> None:
        """Change the copy now and the stored document soon. Raises `MetadataTooLargeError`, with nothing changed."""
        self._attempt.check()
        operation = replace(operation, target=self._target(operation.target))
        weight = _weight(operation)
        if weight > METADATA_LIMIT + _PUNCTUATION:
            raise MetadataTooLargeError(weight, METADATA_LIMIT)
        with self._lock:
            place, number = self._next_place()
            if number <= self._applied.get(place, -1):
                return
            if operation.target is MetadataTarget.OWN:
                self._change(operation, weight)
            self._add(PlacedOperation(place=place, number=number, operation=operation))
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon_threadsafe(self._schedule, context=contextvars.Context())

    async def flush(self) -> None:
        """Return when every update that was made so far is stored."""
        upto = self._made
        while self._sent < upto and not self._attempt.is_dropped:
            if self._sending is None or self._sending.done():
                self._sending = self._loop.create_task(self._send(), context=contextvars.Context())
            await asyncio.shield(self._sending)

    async def refresh(self) -> None:
        """The same; and the copy is then what the database holds, with the updates of others."""
        self._attempt.check()
        with self._lock:
            self._made += 1
        await self.flush()

    def _target(self, target: MetadataTarget) -> MetadataTarget:
        """Return whose document it is: a run that nobody has triggered is its own parent."""
        return target if self._attempt.lease.parent_run_id is not None else MetadataTarget.OWN

    def _next_place(self) -> tuple[str, int]:
        path = self._path()
        number = (path.asked << 32) + path.updates
        path.updates += 1
        return path.text, number

    def _change(self, operation: MetadataOperation, weight: int) -> None:
        changed = metadata.apply(self._document, operation)
        most = self._most + weight
        if most > METADATA_LIMIT:
            most = _size(changed)
            if most > METADATA_LIMIT and most > _size(self._document):
                raise MetadataTooLargeError(most, METADATA_LIMIT)
        self._document, self._most = changed, most

    def _add(self, placed: PlacedOperation) -> None:
        self._made += 1
        last = self._pending[-1] if self._pending else None
        if last is not None and _is_mergeable(last, placed):
            self._pending[-1] = replace(placed, operation=_sum(last.operation, placed.operation))
        else:
            self._pending.append(placed)

    def _keep(self, text: str) -> None:
        self._document = cast("Document", codec.decode(text, what="the metadata"))
        self._most = len(text.encode())

    def _schedule(self) -> None:
        pause = max(GATHER, self._sent_at + FLUSH_EVERY - self._loop.time())
        self._loop.call_later(pause, self._start, context=contextvars.Context())

    def _start(self) -> None:
        self._is_scheduled = False
        # The end of the attempt, or a trigger, may have sent it: what is left to a loop that closes would never be awaited.
        if self._sent < self._made and not self._attempt.is_dropped:
            self._calls.run_apart(self.flush())

    async def _send(self) -> None:
        with self._lock:
            taken, self._pending, upto = tuple(self._pending), [], self._made
        self._sent_at = self._loop.time()
        try:
            answer = await self._ask(taken)
        except DetentError:  # what cannot be stored must not stop the run that says it
            log.exception("%d updates of metadata by run %s could not be stored", len(taken), self._attempt.run_id)
        else:
            self._take(answer)
        self._sent = upto

    async def _ask(self, operations: tuple[PlacedOperation, ...]) -> MetadataUpdated | Stale:
        while True:
            holder = self._attempt.holder
            answer = await self._calls.update_metadata(MetadataUpdate(holder=holder, operations=operations))
            # Resumed under another fence meanwhile, the run asks again.
            if isinstance(answer, MetadataUpdated) or self._attempt.holder == holder:
                return answer

    def _take(self, answer: MetadataUpdated | Stale) -> None:
        if isinstance(answer, Stale):
            return
        if answer.is_refused:
            log.warning(
                "updates of metadata by run %s were dropped: with those of other runs it would be over %s bytes",
                self._attempt.run_id,
                f"{METADATA_LIMIT:,}",
            )
        with self._lock:
            self._keep(answer.document)
            for placed in self._pending:
                if placed.operation.target is MetadataTarget.OWN:
                    self._document = metadata.apply(self._document, placed.operation)
                    self._most += _weight(placed.operation)


def _sum(first: MetadataOperation, second: MetadataOperation) -> MetadataOperation:
    """Return the one operation that two of a kind at one path come to."""
    if first.kind is not MetadataKind.INCREMENT:
        return second
    return replace(second, value=cast("float", first.value) + cast("float", second.value))


def _is_mergeable(last: PlacedOperation, placed: PlacedOperation) -> bool:
    one, other = last.operation, placed.operation
    is_alike = (one.kind, one.target, one.path) == (other.kind, other.target, other.path)
    return is_alike and one.kind in _MERGED and last.place == placed.place


def _applied_in(attempt: Attempt) -> dict[str, int]:
    """Return the number of the latest update that was applied at each place of this attempt's code."""
    applied = json.loads(attempt.lease.metadata_applied or "{}")
    return applied["places"] if applied.get("attempt") == attempt.attempt else {}


def _size(value: codec.JsonValue) -> int:
    return len(codec.encode(value, what="metadata").encode())


def _weight(operation: MetadataOperation) -> int:
    """Return by how many bytes a document may grow with an operation."""
    return _size([*operation.path, operation.value]) + 4 * len(operation.path) + _PUNCTUATION
