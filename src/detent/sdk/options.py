"""The options of a trigger: one list, checked at the call."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypedDict, TypeVar

from detent import duration
from detent.duration import Duration
from detent.errors import TooManyTagsError
from detent.protocol.limits import TAG_LENGTH_LIMIT, TAGS_LIMIT, WAIT_KEY_LIMIT
from detent.protocol.retry import ATTEMPTS_CEILING
from detent.sdk import concurrency, idempotency, inheritance, scope, spelling
from detent.sdk import queue as queues
from detent.sdk.concurrency import NamedLimit
from detent.sdk.debounce import LONGEST_KEY, Debounce
from detent.sdk.inheritance import INHERIT, Inherit
from detent.sdk.queue import Queue

if TYPE_CHECKING:
    from pydantic import BaseModel

    from detent.protocol.flow import Debouncing
    from detent.protocol.idempotency import Idempotency, WaitKey
    from detent.protocol.moment import When

T = TypeVar("T")

LONGEST_NAME = 128
VERSION = "DETENT_VERSION"
"""Environment variable: the version that triggers from outside of runs are for."""


class ChildOptions(TypedDict, total=False):
    """Options of `trigger_and_wait`, `call` and `batch_trigger_and_wait`, all optional.

    - `delay`: a `Duration`, or an aware `datetime`, before which the run does not start.
    - `ttl`: how long the run may stay in the queue without ever having started; then it is `EXPIRED`. A `Duration`; 0 is for
      ever. Default: the task's, else the config's.
    - `tags`: one text or several, for finding runs: at most 10, each of at most 128 characters; blank ones are dropped.
    - `max_attempts`: how often the run is tried, the first time counted: 1 to 250. Default: the task's `retry`.
    - `max_duration`: wall time that one attempt may take, its waits not counted. Default: the task's.
    - `machine`: the name of the machine that it runs on. Default: the task's.
    - `metadata`: an object of at most 262,144 bytes of JSON: a mapping of texts to what payloads can hold, or a model.
    - `idempotency_key`: the same key gives the same run again. A raw text is run-scoped inside a task, global outside.
    - `idempotency_key_ttl`: how long the key is remembered; default 30 days.
    - `debounce`: a `Debounce(key, delay)`: triggers of one key become one run. `delay` then says only when it first starts.
    - `queue`: the queue, as `queue()` returns it or by its name; default the task's.
    - `concurrency_key`: a text or a number. Runs with different keys have lines of their own, and are bounded by themselves
      where a limit is `per_key`.
    - `concurrency`: one or two named limits that the run holds instead of the task's named ones, as `concurrency_limit()` returns
      them or by their names; `[]` for none. The task's inline limit stays.
    - `priority`: seconds by which the run is preferred to those queued with it; negative ones move it back.

    A run takes over nothing of the run that triggers it. `INHERIT` as `metadata`, `tags`, `queue` or `concurrency_key` does, and
    raises `OutsideRunError` where there is no run.
    """

    delay: Duration | datetime
    ttl: Duration
    tags: str | Iterable[str] | Inherit
    max_attempts: int
    max_duration: Duration
    machine: str
    metadata: Mapping[str, object] | BaseModel | Inherit
    idempotency_key: str | Sequence[str]
    idempotency_key_ttl: Duration
    debounce: Debounce
    queue: Queue | str | Inherit
    concurrency_key: str | float | Inherit
    concurrency: NamedLimit | Iterable[NamedLimit]
    priority: float


class TriggerOptions(ChildOptions, total=False):
    """Options of `trigger`, `item` and `batch_trigger`: those of `ChildOptions`, and `version`.

    - `version`: only workers of this version run it. Default: outside of runs what DETENT_VERSION says, else whichever is there.
    """

    version: str


KNOWN = frozenset({*ChildOptions.__annotations__, *TriggerOptions.__annotations__})
_LATER = frozenset({"region"})


def check_names(options: Mapping[str, object]) -> None:
    """Raise `TypeError` for an option that is not there, naming the nearest."""
    if options.keys() <= KNOWN:
        return
    name = min(options.keys() - KNOWN)
    if name in _LATER:
        raise TypeError(f"the option {name}= is not available yet in this version of detent; leave it out")
    raise TypeError(f"unknown option {name!r}{spelling.hint(name, KNOWN)}")


def check_child(options: Mapping[str, object]) -> None:
    """Raise `TypeError` for what may not be said of a run that its parent waits for."""
    if options.get("version") is not None:
        raise TypeError(
            "version= is not for a child that its run waits for, which goes on in the version of its parent; "
            "leave it out, or use trigger()"
        )


def to_fields(options: Mapping[str, object]) -> dict[str, object]:
    """Return the fields of a `TriggerRequest` that *options* ask for; an option given as None counts as not given."""
    check_names(options)
    fields: dict[str, object] = {}
    for name, given in options.items():
        value = inheritance.field_of_run(name) if given is INHERIT else given
        if value is None or name == "idempotency_key_ttl":
            continue
        if given is INHERIT:
            fields[name] = value
        elif name == "idempotency_key":
            fields["idempotency"] = _idempotency(value, options.get("idempotency_key_ttl"))
        else:
            fields[_FIELDS.get(name, name)] = _READERS[name](name, value)
    return fields


def default_version() -> str | None:
    """Return the version that a trigger without one is for."""
    return os.environ.get(VERSION) or None if scope.current() is None else None


def to_when(name: str, moment: object) -> When:
    """Return a moment given as a duration or an aware `datetime`; raises `ValueError` for a naive one."""
    return aware(name, moment) if isinstance(moment, datetime) else _duration(name, moment)


def to_wait_key(key: str | None, ttl: Duration | None) -> WaitKey | None:
    """Return the idempotency key of a wait or a token, which is stored as it is; raises `ValueError` for a bad one."""
    from detent.protocol.idempotency import WaitKey

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


def to_key(name: str, value: object) -> str:
    """Return a concurrency key, given as a text or a number, as text. Raises `TypeError` and `ValueError`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"{name}={value!r} must be a text or a finite number")
        return str(int(value)) if value == int(value) else str(value)
    return _name(name, value)


def _idempotency(key: object, ttl: object) -> Idempotency:
    lifetime = None if ttl is None else _duration("idempotency_key_ttl", ttl)
    return idempotency.stored(idempotency.of_option(key), lifetime)


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


def _seconds(name: str, value: object) -> float:
    return _duration(name, value).total_seconds()


def _queue(name: str, value: object) -> str:
    return _named(name, value, queues.name_of)


def _limits(name: str, value: object) -> tuple[str, ...]:
    return _named(name, value, concurrency.to_names)


def _named(name: str, value: object, read: Callable[[object], T]) -> T:
    try:
        return read(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error


def _machine(name: str, value: object) -> str:
    # Which there are is known to whoever executes the task.
    from detent.sdk import machines

    return _named(name, value, machines.check_text)


def _debouncing(name: str, value: object) -> Debouncing:
    if not isinstance(value, Debounce):
        raise TypeError(f'{name}={value!r} must be a Debounce, such as Debounce("doc-7", "5s")')
    check_text("the key of a Debounce", value.key, longest=LONGEST_KEY)
    return value.to_debouncing()


def _priority(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r} must be a number of seconds")
    return float(value)


def _metadata(name: str, value: object) -> str:
    from detent.sdk import metadata

    return metadata.encode_document(value, what=name)


_FIELDS = {"concurrency": "limits"}
"""Options whose fields have other names."""
_READERS: dict[str, Callable[[str, object], object]] = {
    "delay": to_when,
    "ttl": _seconds,
    "tags": to_tags,
    "max_attempts": _attempts,
    "max_duration": _longest,
    "machine": _machine,
    "metadata": _metadata,
    "debounce": _debouncing,
    "queue": _queue,
    "concurrency_key": to_key,
    "concurrency": _limits,
    "priority": _priority,
    "version": _name,
}
