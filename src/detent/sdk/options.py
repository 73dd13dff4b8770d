"""The options of a trigger: one list, checked at the call."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypedDict

from detent import duration
from detent.duration import Duration
from detent.errors import MetadataTooLargeError, PayloadTooLargeError, SerializationError, TooManyTagsError
from detent.protocol import codec
from detent.protocol.codec import JsonValue
from detent.protocol.limits import METADATA_LIMIT, TAG_LENGTH_LIMIT, TAGS_LIMIT, WAIT_KEY_LIMIT
from detent.protocol.retry import ATTEMPTS_CEILING
from detent.sdk import idempotency, spelling

if TYPE_CHECKING:
    from detent.protocol.models import WaitKey, When

LONGEST_NAME = 128
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class TriggerOptions(TypedDict, total=False):
    """Options of `trigger`, `trigger_and_wait`, `call`, `item` and the batch methods, all optional.

    - `delay`: a `Duration`, or an aware `datetime`, before which the run does not start.
    - `tags`: one text or several, for finding runs: at most 10, each of at most 128 characters; blank ones are dropped.
    - `max_attempts`: how often the run is tried, the first time counted: 1 to 250. Default: the task's `retry`.
    - `max_duration`: wall time that one attempt may take, its waits not counted. Default: the task's.
    - `metadata`: a JSON object of at most 262,144 bytes.
    - `idempotency_key`: the same key gives the same run again. A raw text is run-scoped inside a task, global outside.
    - `idempotency_key_ttl`: how long the key is remembered; default 30 days.
    - `queue`: the name of the queue; default the task's.
    - `concurrency_key`: runs with different keys have lines of their own.
    - `priority`: seconds by which the run is preferred to those queued with it; negative ones move it back.
    """

    delay: Duration | datetime
    tags: str | Iterable[str]
    max_attempts: int
    max_duration: Duration
    metadata: Mapping[str, JsonValue]
    idempotency_key: str | Sequence[str]
    idempotency_key_ttl: Duration
    queue: str
    concurrency_key: str
    priority: float


KNOWN = frozenset(TriggerOptions.__annotations__)
_LATER = frozenset({"concurrency", "debounce", "machine", "region", "ttl", "version"})


def check_names(options: Mapping[str, object]) -> None:
    """Raise `TypeError` for an option that is not there, naming the nearest."""
    if options.keys() <= KNOWN:
        return
    name = min(options.keys() - KNOWN)
    if name in _LATER:
        raise TypeError(f"the option {name}= is not available yet in this version of detent; leave it out")
    raise TypeError(f"unknown option {name!r}{spelling.hint(name, KNOWN)}")


def to_fields(options: Mapping[str, object]) -> dict[str, object]:
    """Return the fields of a `TriggerRequest` that *options* ask for; an option given as None counts as not given."""
    check_names(options)
    fields: dict[str, object] = {}
    for name, value in options.items():
        if value is None or name == "idempotency_key_ttl":
            continue
        if name == "idempotency_key":
            ttl = options.get("idempotency_key_ttl")
            lifetime = None if ttl is None else _duration("idempotency_key_ttl", ttl)
            fields["idempotency"] = idempotency.stored(idempotency.of_option(value), lifetime)
        else:
            fields[name] = _READERS[name](name, value)
    return fields


def to_when(name: str, moment: object) -> When:
    """Return a moment given as a duration or an aware `datetime`; raises `ValueError` for a naive one."""
    return aware(name, moment) if isinstance(moment, datetime) else _duration(name, moment)


def to_wait_key(key: str | None, ttl: Duration | None) -> WaitKey | None:
    """Return the idempotency key of a wait or a token, which is stored as it is; raises `ValueError` for a bad one."""
    from detent.protocol.models import WaitKey

    if key is None:
        if ttl is not None:
            raise TypeError("idempotency_key_ttl= says how long a key is remembered: give idempotency_key=, too")
        return None
    text = check_text("idempotency_key", key, longest=WAIT_KEY_LIMIT)
    return WaitKey(key=str(text), ttl=None if ttl is None else _duration("idempotency_key_ttl", ttl))


def aware(name: str, moment: datetime) -> datetime:
    """Return *moment* if it has a timezone; raises `ValueError` for a naive one."""
    if moment.utcoffset() is None:
        raise ValueError(
            f"{name}={moment!r} is a naive datetime, which means another moment on every machine; "
            "give it a timezone, as in datetime.now(UTC)"
        )
    return moment


def check_text(name: str, text: object, *, longest: int) -> str:
    """Return *text* if it is one that the database can hold."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be text, not {text!r}")
    if len(text) > longest:
        raise ValueError(f"{name} has {len(text)} characters, over the limit of {longest}")
    if "\x00" in text or not (text.isascii() or _is_unicode(text)):
        raise ValueError(f"{name}={text!r} holds a NUL or a lone surrogate, which the database cannot store")
    return text


def to_tags(name: str, tags: object) -> tuple[str, ...]:
    """Return tags without blank ones and repetitions; raises `TooManyTagsError`, or `ValueError` for a long one."""
    listed = [tags] if isinstance(tags, str) else _texts(name, tags)
    kept = tuple(dict.fromkeys(check_text("a tag", tag, longest=TAG_LENGTH_LIMIT) for tag in listed if _is_filled(tag)))
    if len(kept) > TAGS_LIMIT:
        raise TooManyTagsError(len(kept), TAGS_LIMIT)
    return kept


def _is_filled(tag: object) -> bool:
    return not isinstance(tag, str) or bool(tag.strip())


def _texts(name: str, values: object) -> list[object]:
    if not isinstance(values, Iterable) or isinstance(values, (bytes, Mapping)):
        raise TypeError(f"{name} must be text or several texts, not {values!r}")
    return list(values)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _duration(name: str, value: object) -> timedelta:
    try:
        return duration.parse(value)  # type: ignore[arg-type]  # what is no duration is refused by it
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _attempts(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= ATTEMPTS_CEILING:
        raise ValueError(f"{name}={value!r} must be a whole number of 1 to {ATTEMPTS_CEILING}")
    return value


def _longest(name: str, value: object) -> float:
    allowed = _duration(name, value).total_seconds()
    if not allowed:
        raise ValueError(f"{name} must be longer than 0 s")
    return allowed


def _name(name: str, value: object) -> str:
    text = check_text(name, value, longest=LONGEST_NAME)
    if not text.strip():
        raise ValueError(f"{name} cannot be blank")
    return text


def _priority(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r} must be a number of seconds")
    return float(value)


def _metadata(name: str, value: object) -> str:
    if not isinstance(value, Mapping):
        raise SerializationError(name, f"it must be an object of texts to JSON values, not {type(value).__name__}")
    if not all(isinstance(key, str) for key in value):
        raise SerializationError(name, "its keys must be texts")
    try:
        text = codec.encode(dict(value), what=name, limit=METADATA_LIMIT)
    except PayloadTooLargeError as error:
        raise MetadataTooLargeError(error.size, error.limit) from error
    if "\\u0000" in text and _ESCAPED_NUL.search(text):
        raise SerializationError(name, "it holds a NUL character, which the database cannot store")
    return text


_READERS: dict[str, Callable[[str, object], object]] = {
    "delay": to_when,
    "tags": to_tags,
    "max_attempts": _attempts,
    "max_duration": _longest,
    "metadata": _metadata,
    "queue": _name,
    "concurrency_key": _name,
    "priority": _priority,
}
