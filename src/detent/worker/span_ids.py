"""Ids of traces and spans. They follow from the ids of runs and from places in their code, so that nothing is stored for them.

A family of runs is one trace: its id is that of the root run. The first attempt of a run is the span whose id is the end of the
run's id, which is all that the attempts of its children need to know of their parent. What an attempt's code begins is named by
where it stands (`worker/path.py`): a replay makes the same span again, and what began before a crash fits to what ends after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import blake2b

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from detent.protocol import ids
from detent.protocol.ids import RunId
from detent.protocol.leases import Lease
from detent.sdk import scope as run_scope
from detent.worker.run_scope import AttemptScope

_TAIL = (1 << 64) - 1
_own: ContextVar[tuple[int, int] | None] = ContextVar("detent_span", default=None)


def trace_id_of(lease: Lease) -> int:
    """Return the id of the trace that the run's whole family is in."""
    return int(ids.to_hex("run", lease.root_run_id or lease.run_id), 16)


def span_id_of(run_id: RunId, attempt: int = 1) -> int:
    """Return the id of an attempt's span."""
    return int(ids.to_hex("run", run_id), 16) & _TAIL if attempt == 1 else _hashed(f"{run_id} {attempt}")


@contextmanager
def beginning(trace_id: int, span_id: int) -> Iterator[None]:
    """Give these ids to the span that begins in the block."""
    token = _own.set((trace_id, span_id))
    try:
        yield
    finally:
        _own.reset(token)


class RunIds(RandomIdGenerator):
    """Random ids for what does not begin in a run's own code."""

    def generate_trace_id(self) -> int:
        own = _own.get()
        return super().generate_trace_id() if own is None else own[0]

    def generate_span_id(self) -> int:
        own = _own.get()
        if own is not None:
            return own[1]
        scope = run_scope.current()
        place = scope.place_of_span() if isinstance(scope, AttemptScope) else None
        return super().generate_span_id() if place is None else _hashed(place)


def _hashed(text: str) -> int:
    # 0 stands for no span.
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) or 1
