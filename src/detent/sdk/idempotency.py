"""Idempotency keys: the same key, the same run. The recipe is the reference's, so its clients share keys with ours."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, Self, TypeAlias, get_args

from detent.sdk import scope as run_scope
from detent.sdk import spelling

if TYPE_CHECKING:
    from detent.protocol.idempotency import Idempotency

Scope: TypeAlias = Literal["run", "attempt", "global"]

LONGEST_KEY = 2_048
_HASH_LENGTH = 64
_SCOPES = get_args(Scope)


class IdempotencyKey(str):
    """A key ready for use: 64 hex digits. `user_key` is what it was made of, `scope` where it is the same."""

    __slots__ = ("scope", "user_key")

    scope: Scope
    user_key: str

    def __new__(cls, value: str, *, user_key: str, scope: Scope) -> Self:
        key = super().__new__(cls, value)
        key.user_key, key.scope = user_key, scope
        return key

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, str]]:
        return (str(self),), {"user_key": self.user_key, "scope": self.scope}


def make(key: str | Sequence[str], scope: Scope, *, run_id: str | None, attempt: int | None) -> IdempotencyKey:
    """Return the key that *key* is in *scope* of a run and attempt; both None outside a run."""
    parts = _parts_of(key)
    user_key = "-".join(parts)
    if scope == "run" and run_id is not None:
        parts.append(run_id)
    if scope == "attempt" and run_id is not None:
        parts += [run_id, str(attempt)]
    return IdempotencyKey(_hash("-".join(parts)), user_key=user_key, scope=scope)


def of_option(key: object) -> IdempotencyKey:
    """Return the key that a caller passed as `idempotency_key=`: run-scoped inside a task, global outside."""
    if isinstance(key, IdempotencyKey):
        return key
    if isinstance(key, str) and len(key) == _HASH_LENGTH:
        return IdempotencyKey(key, user_key=key, scope="global")
    present = run_scope.current()
    if present is None:
        return make(_checked(key), "global", run_id=None, attempt=None)
    return make(_checked(key), "run", run_id=present.context.run.id, attempt=None)


def stored(key: IdempotencyKey, ttl: timedelta | None) -> Idempotency:
    """Return a key as it is sent, remembered for *ttl*; None is the default."""
    from detent.protocol.idempotency import Idempotency

    if ttl is None:
        return Idempotency(key=str(key), user_key=key.user_key, scope=key.scope)
    return Idempotency(key=str(key), user_key=key.user_key, scope=key.scope, ttl=ttl)


def of_item(batch_key: object, index: int) -> IdempotencyKey:
    """Return the key of a batch's item that has none of its own, as the reference derives it."""
    present = run_scope.current()
    run_id = None if present is None else present.context.run.id
    return make([str(of_option(batch_key)), str(index)], "run", run_id=run_id, attempt=None)


def checked_scope(scope: str) -> Scope:
    if scope not in _SCOPES:
        raise ValueError(f"scope={scope!r} is no scope{spelling.hint(str(scope), _SCOPES)}")
    return scope  # type: ignore[return-value]  # it is one of them: mypy does not narrow by get_args


def _parts_of(key: str | Sequence[str]) -> list[str]:
    parts = [key] if isinstance(key, str) else list(_checked(key))
    if not all(isinstance(part, str) for part in parts):
        raise TypeError(f"an idempotency key is text or a sequence of texts, not {key!r}")
    if not any(parts):
        raise ValueError("an idempotency key cannot be empty")
    if len("-".join(parts)) > LONGEST_KEY:
        raise ValueError(f"an idempotency key has at most {LONGEST_KEY} characters; hash what it is made of")
    return parts


def _checked(key: object) -> str | Sequence[str]:
    if isinstance(key, (str, Sequence)) and not isinstance(key, (bytes, bytearray)):
        return key
    raise TypeError(f"an idempotency key is text or a sequence of texts, not {key!r}")


def _hash(text: str) -> str:
    from hashlib import sha256

    try:
        return sha256(text.encode()).hexdigest()
    except UnicodeEncodeError as error:
        raise ValueError("an idempotency key cannot hold a lone surrogate") from error
