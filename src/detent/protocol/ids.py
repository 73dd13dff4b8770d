"""Typed, time-ordered ids: a prefix and a UUIDv7 in Crockford base 32, as in TypeID (github.com/jetify-com/typeid)."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from uuid import UUID

RunId = NewType("RunId", str)
BatchId = NewType("BatchId", str)
BulkId = NewType("BulkId", str)
WaitpointId = NewType("WaitpointId", str)
SessionId = NewType("SessionId", str)
ScheduleId = NewType("ScheduleId", str)

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_TO_PYTHON_DIGITS = str.maketrans(_CROCKFORD, "0123456789abcdefghijklmnopqrstuv")
_PAIRS = [a + b for a in _CROCKFORD for b in _CROCKFORD]
_DIGITS = frozenset(_CROCKFORD)
_BODY_LENGTH = 26
_LARGEST = 1 << 128
_TAIL = 0x3FFF_FFFF_FFFF_FFFF
"""The random bits after the time and the variant."""

_lock = threading.Lock()
_last_tick = 0


def new_uuid() -> UUID:
    """Return a UUIDv7 (RFC 9562, method 3: the 12 bits after the milliseconds are a fraction of one), rising in a process."""
    return _uuid(_new())


def new_run_id() -> RunId:
    return RunId(_encode("run", _new()))


def new_batch_id() -> BatchId:
    return BatchId(_encode("batch", _new()))


def new_bulk_id() -> BulkId:
    return BulkId(_encode("bulk", _new()))


def new_waitpoint_id() -> WaitpointId:
    return WaitpointId(_encode("waitpoint", _new()))


def new_session_id() -> SessionId:
    return SessionId(_encode("session", _new()))


def new_schedule_id() -> ScheduleId:
    return ScheduleId(_encode("sched", _new()))


def _new() -> int:
    global _last_tick
    now = time.time_ns()
    tick = ((now // 1_000_000) << 12) | ((now % 1_000_000) << 12) // 1_000_000
    with _lock:
        _last_tick = tick = max(tick, _last_tick + 1)
    random = int.from_bytes(os.urandom(8)) & 0x3FFF_FFFF_FFFF_FFFF
    return (tick >> 12) << 80 | 0x7 << 76 | (tick & 0xFFF) << 64 | 0x2 << 62 | random


def item_run_id(batch_id: BatchId, index: int) -> RunId:
    """Return the id of the run that item *index* of a batch makes: the same at every try, rising with the index."""
    value = _batch_value(batch_id)
    return RunId(_encode("run", value & ~_TAIL | (value + index + 1) & _TAIL))


def replayed_run_id(bulk_id: BulkId, run_id: RunId) -> RunId:
    """Return the id of the run that replays *run_id* in a bulk action: the same at every try, and of the action's time."""
    from hashlib import sha256

    head = _decode("bulk", bulk_id) & ~_TAIL
    return RunId(_encode("run", head | int.from_bytes(sha256(f"{bulk_id} {run_id}".encode()).digest()[:8]) & _TAIL))


@lru_cache(maxsize=16)
def _batch_value(batch_id: BatchId) -> int:
    return _decode("batch", batch_id)


def encode(prefix: str, value: UUID) -> str:
    """Return the public form of *value*.

    >>> from uuid import UUID
    >>> encode("run", UUID("01890a5d-ac96-774b-bcce-b302099a8057"))
    'run_01h455vb4pex5vsknk084sn02q'
    """
    return _encode(prefix, value.int)


def _encode(prefix: str, value: int) -> str:
    digits = []
    for _ in range(13):
        digits.append(_PAIRS[value & 1023])
        value >>= 10
    digits.reverse()
    return f"{prefix}_{''.join(digits)}"


def decode(prefix: str, text: str) -> UUID:
    """Return the UUID behind a public id; raise `ValueError` when it is not one of this kind.

    >>> decode("run", "run_01h455vb4pex5vsknk084sn02q")
    UUID('01890a5d-ac96-774b-bcce-b302099a8057')
    """
    return _uuid(_decode(prefix, text))


def _decode(prefix: str, text: str) -> int:
    body = text[len(prefix) + 1 :]
    if not text.startswith(f"{prefix}_") or len(body) != _BODY_LENGTH or not set(body) <= _DIGITS:
        raise ValueError(f'{text!r} is no {prefix} id; one looks like "{prefix}_01h455vb4pex5vsknk084sn02q"')
    value = int(body.translate(_TO_PYTHON_DIGITS), 32)
    if value >= _LARGEST:
        raise ValueError(f'{text!r} is no {prefix} id; one looks like "{prefix}_01h455vb4pex5vsknk084sn02q"')
    return value


def _uuid(value: int) -> UUID:
    from uuid import UUID

    return UUID(int=value)


def created_at(value: UUID) -> datetime:
    """Return the moment a UUIDv7 was made, to the millisecond."""
    return datetime.fromtimestamp((value.int >> 80) / 1000, UTC)


def to_hex(prefix: str, text: str) -> str:
    """Return the 32 hex digits behind a public id, as PostgreSQL reads them; raise `ValueError` like `decode`."""
    return f"{_decode(prefix, text):032x}"
