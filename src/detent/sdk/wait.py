"""`wait`: durable pauses of a run, and tokens. They survive a crash, a restart and a deploy, and hold no slot."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from detent import duration as durations
from detent.duration import Duration
from detent.protocol.codec import JsonValue
from detent.protocol.ids import new_waitpoint_id
from detent.protocol.status import TokenStatus
from detent.sdk import spelling
from detent.sdk import token as tokens
from detent.sdk.blocking import blocking
from detent.sdk.options import aware, to_tags, to_wait_key, to_when
from detent.sdk.page import Page, PageCall
from detent.sdk.result import Result
from detent.sdk.scope import RunScope
from detent.sdk.target import HERE, Target
from detent.sdk.token import RetrievedToken, Token, TokenCall

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from detent.protocol.idempotency import WaitKey
    from detent.protocol.ids import WaitpointId
    from detent.protocol.moment import When
    from detent.protocol.tokens import TokenFilter, TokenRequest
    from detent.sdk.schema import Schema

T = TypeVar("T")

LARGEST_PAGE = 100

_UNITS = {
    "seconds": timedelta(seconds=1),
    "minutes": timedelta(minutes=1),
    "hours": timedelta(hours=1),
    "days": timedelta(days=1),
    "weeks": timedelta(weeks=1),
    "months": timedelta(days=30),
    "years": timedelta(days=365),
}


class Wait:
    """Pauses of the present run, and tokens. Up to 5 s are slept in the process; longer pauses suspend the run."""

    label = "wait"

    def __init__(self, target: Target = HERE) -> None:
        self._target = target
        self.sync = WaitSync(self)

    # ---- moments

    def for_(
        self,
        duration: Duration | None = None,
        /,
        *,
        seconds: float | None = None,
        minutes: float | None = None,
        hours: float | None = None,
        days: float | None = None,
        weeks: float | None = None,
        months: float | None = None,
        years: float | None = None,
        idempotency_key: str | None = None,
        idempotency_key_ttl: Duration | None = None,
    ) -> Coroutine[Any, Any, None]:
        """Pause the run: exactly one unit, or a `Duration`. A month is 30 days, a year 365; fractions are allowed.

        Example::

            await wait.for_(minutes=1.5)
            await wait.for_("1h30m", idempotency_key="trial-of-user-7")

        With a key, waits that name it end together, at the date of the first; when that has come, they are skipped. The key
        is remembered for *idempotency_key_ttl*, by default for ever, and not looked at for pauses of up to 5 s.

        Raises `OutsideRunError` outside a run, `ValueError` for a negative time.
        """
        units = {
            "seconds": seconds, "minutes": minutes, "hours": hours, "days": days, "weeks": weeks, "months": months,
            "years": years,
        }  # fmt: skip
        given = {name: value for name, value in units.items() if value is not None}
        present = self._target.run("wait.for_")
        return _pause(present, _length(duration, given), to_wait_key(idempotency_key, idempotency_key_ttl))

    def until(
        self,
        moment: datetime,
        /,
        *,
        raise_if_past: bool = False,
        idempotency_key: str | None = None,
        idempotency_key_ttl: Duration | None = None,
    ) -> Coroutine[Any, Any, None]:
        """Pause the run until an aware `datetime`. One that has passed ends at once, or raises with *raise_if_past*.

        Example::

            await wait.until(datetime(2030, 1, 1, tzinfo=UTC))

        An idempotency key is as for `wait.for_`. Raises `OutsideRunError` outside a run, `ValueError` for a naive date.
        """
        present = self._target.run("wait.until")
        aware("wait.until", moment)
        if raise_if_past:
            _refuse_past(moment, present)
        return _pause(present, moment, to_wait_key(idempotency_key, idempotency_key_ttl))

    # ---- tokens

    @overload
    def create_token(
        self,
        *,
        output: type[T] | TypeAdapter[T],
        timeout: Duration | datetime | None = None,
        tags: str | Iterable[str] = (),
        idempotency_key: str | None = None,
        idempotency_key_ttl: Duration | None = None,
    ) -> Coroutine[Any, Any, Token[T]]: ...
    @overload
    def create_token(
        self,
        *,
        timeout: Duration | datetime | None = None,
        tags: str | Iterable[str] = (),
        idempotency_key: str | None = None,
        idempotency_key_ttl: Duration | None = None,
    ) -> Coroutine[Any, Any, Token[JsonValue]]: ...
    def create_token(
        self,
        *,
        output: object = None,
        timeout: Duration | datetime | None = None,
        tags: str | Iterable[str] = (),
        idempotency_key: str | None = None,
        idempotency_key_ttl: Duration | None = None,
    ) -> Coroutine[Any, Any, Token[Any]]:
        """Make a token, inside a run or outside. *output* is the type of what it will be completed with.

        Example::

            token = await wait.create_token(output=Approval, timeout="10m", tags=["user:7"])

        After *timeout* (a `Duration` or an aware `datetime`; default: never) whoever waits for it gets an error. The same
        *idempotency_key* gives the same token, completed or not, until *idempotency_key_ttl* is over (default: for ever).

        Raises `TooManyTagsError` for more than 10 tags, `ConflictError` for a key that a wait for a moment has.
        """
        from detent.protocol.tokens import TokenRequest

        request = TokenRequest(
            waitpoint_id=new_waitpoint_id(),
            timeout=None if timeout is None else to_when("timeout", timeout),
            tags=to_tags("tags", tags),
            key=to_wait_key(idempotency_key, idempotency_key_ttl),
        )
        return self._create(request, tokens.schema_of(output))

    @overload
    def for_token(self, token: Token[T]) -> TokenCall[T]: ...
    @overload
    def for_token(self, token: str, *, output: type[T] | TypeAdapter[T]) -> TokenCall[T]: ...
    @overload
    def for_token(self, token: str) -> TokenCall[JsonValue]: ...
    def for_token(self, token: object, *, output: object = None) -> TokenCall[Any]:
        """Suspend the run until a token is completed or times out: at once, when it already is. Any number of runs may wait.

        Example::

            result = await wait.for_token(token)
            if result.ok:
                result.output
            approval = await wait.for_token("waitpoint_…", output=Approval).unwrap()

        Raises `OutsideRunError` outside a run, `NotFoundError` for an id that no token has.
        """
        name = "wait.for_token"
        token_id, schema = tokens.id_of(token), tokens.schema_for(token, output)
        return TokenCall(_await_token(self._target.run(name), token_id, schema), name)

    @overload
    def complete_token(self, token: Token[T], data: T) -> Coroutine[Any, Any, bool]: ...
    @overload
    def complete_token(self, token: str, data: object = None) -> Coroutine[Any, Any, bool]: ...
    def complete_token(self, token: object, data: object = None) -> Coroutine[Any, Any, bool]:
        """Complete a token with *data*, from anywhere; who waits for it goes on. True if it was completed by this call.

        The first completion counts: on a token that was completed, or has timed out, this changes nothing and is False.

        Example::

            await wait.complete_token(token.id, {"status": "approved"})

        Raises `NotFoundError`, and `SerializationError` for data that does not fit the type of a token given as itself.
        """
        token_id, schema = tokens.id_of(token), tokens.schema_for(token, None)
        return self._complete(token_id, tokens.encode(token_id, data, schema))

    @overload
    def retrieve_token(self, token: Token[T]) -> Coroutine[Any, Any, RetrievedToken[T]]: ...
    @overload
    def retrieve_token(
        self, token: str, *, output: type[T] | TypeAdapter[T]
    ) -> Coroutine[Any, Any, RetrievedToken[T]]: ...
    @overload
    def retrieve_token(self, token: str) -> Coroutine[Any, Any, RetrievedToken[JsonValue]]: ...
    def retrieve_token(self, token: object, *, output: object = None) -> Coroutine[Any, Any, RetrievedToken[Any]]:
        """Return a token as it stands, with what it was completed with. Raises `NotFoundError`."""
        return self._retrieve(tokens.id_of(token), tokens.schema_for(token, output))

    def list_tokens(
        self,
        *,
        status: TokenStatus | str | Iterable[TokenStatus | str] = (),
        tags: str | Iterable[str] = (),
        idempotency_key: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int = 25,
    ) -> PageCall[RetrievedToken[JsonValue]]:
        """Return tokens, newest first: a page of at most *limit* (1 to 100), or with `async for` all of them, page by page.

        Example::

            async for token in wait.list_tokens(status="WAITING", tags="user:7"):
                print(token.id, token.timeout_at)

        Filters given together must all hold; a token must have one of *tags*. What tokens were completed with is left out.
        """
        from detent.protocol.tokens import TokenFilter

        query = TokenFilter(
            statuses=tuple(_status(name) for name in ((status,) if isinstance(status, str) else status)),
            tags=(tags,) if isinstance(tags, str) else tuple(tags),
            idempotency_key=idempotency_key,
            created_after=None if created_after is None else aware("created_after", created_after),
            created_before=None if created_before is None else aware("created_before", created_before),
            limit=_limit(limit),
        )
        return PageCall(self._page(query), "wait.list_tokens")

    async def _create(self, request: TokenRequest, schema: Schema) -> Token[Any]:
        return tokens.of_created(await self._target.create_token(request), schema)

    async def _complete(self, token_id: WaitpointId, output: str) -> bool:
        from detent.protocol.tokens import TokenCompletion

        completion = TokenCompletion(waitpoint_id=token_id, output=output)
        (is_first,) = await self._target.connection().backend.complete_tokens([completion])
        if is_first is None:
            raise tokens.unknown(token_id)
        return is_first

    async def _retrieve(self, token_id: WaitpointId, schema: Schema) -> RetrievedToken[Any]:
        (record,) = await self._target.connection().backend.retrieve_tokens([token_id])
        if record is None:
            raise tokens.unknown(token_id)
        return tokens.of_record(record, schema)

    async def _page(self, query: TokenFilter) -> Page[RetrievedToken[JsonValue]]:
        records = await self._target.connection().backend.list_tokens(query)
        following = replace(query, before=records[-1].id) if len(records) == query.limit else None
        return Page(
            items=tuple(tokens.of_record(record, tokens.schema_of(None)) for record in records),
            read_next=None if following is None else lambda: self._page(following),
        )


class WaitSync:
    """`wait` as blocking calls, for tasks written as plain `def`, and for programs without an event loop."""

    def __init__(self, wait: Wait) -> None:
        self._wait = wait
        self.for_ = blocking(wait.for_)
        self.until = blocking(wait.until)
        self.list_tokens = blocking(wait.list_tokens)

    # A twin derived from an overloaded method would lose its overloads: these have one line for each.

    @overload
    def create_token(
        self,
        *,
        output: type[T] | TypeAdapter[T],
        timeout: Duration | datetime | None = None,
        tags: str | Iterable[str] = (),
        idempotency_key: str | None = None,
        idempotency_key_ttl: Duration | None = None,
    ) -> Token[T]: ...
    @overload
    def create_token(
        self,
        *,
        timeout: Duration | datetime | None = None,
        tags: str | Iterable[str] = (),
        idempotency_key: str | None = None,
        idempotency_key_ttl: Duration | None = None,
    ) -> Token[JsonValue]: ...
    def create_token(self, **options: Any) -> Token[Any]:
        """`wait.create_token` as a blocking call."""
        return blocking(self._wait.create_token)(**options)

    @overload
    def for_token(self, token: Token[T]) -> Result[T]: ...
    @overload
    def for_token(self, token: str, *, output: type[T] | TypeAdapter[T]) -> Result[T]: ...
    @overload
    def for_token(self, token: str) -> Result[JsonValue]: ...
    def for_token(self, token: Any, **options: Any) -> Result[Any]:
        """`wait.for_token` as a blocking call."""
        return blocking(self._wait.for_token)(token, **options)

    @overload
    def complete_token(self, token: Token[T], data: T) -> bool: ...
    @overload
    def complete_token(self, token: str, data: object = None) -> bool: ...
    def complete_token(self, token: Any, data: object = None) -> bool:
        """`wait.complete_token` as a blocking call."""
        return blocking(self._wait.complete_token)(token, data)

    @overload
    def retrieve_token(self, token: Token[T]) -> RetrievedToken[T]: ...
    @overload
    def retrieve_token(self, token: str, *, output: type[T] | TypeAdapter[T]) -> RetrievedToken[T]: ...
    @overload
    def retrieve_token(self, token: str) -> RetrievedToken[JsonValue]: ...
    def retrieve_token(self, token: Any, **options: Any) -> RetrievedToken[Any]:
        """`wait.retrieve_token` as a blocking call."""
        return blocking(self._wait.retrieve_token)(token, **options)


def _pause(present: RunScope, until: When, key: WaitKey | None) -> Coroutine[Any, Any, None]:
    return present.wait_until(until) if key is None else present.wait_until(until, key=key)


async def _await_token(present: RunScope, token_id: WaitpointId, schema: Schema) -> Result[Any]:
    return tokens.to_result(token_id, await present.wait_for_token(token_id), schema)


def _length(duration: Duration | None, given: dict[str, float]) -> timedelta:
    if duration is not None and not given:
        return durations.parse(duration)
    if duration is not None or len(given) != 1:
        asked = [*([] if duration is None else [repr(duration)]), *given]
        raise TypeError(
            f"wait.for_ takes a duration or exactly one of {', '.join(_UNITS)}; it was given {' and '.join(asked) or 'none'}"
        )
    ((unit, count),) = given.items()
    try:
        return durations.parse(durations.seconds(count) * _UNITS[unit].total_seconds())
    except ValueError as error:
        raise ValueError(f"wait.for_({unit}={count!r}): {error}") from error


def _refuse_past(moment: datetime, present: RunScope) -> None:
    # In a replay the date may have been ahead when the code first stood here.
    if not present.is_replaying and moment <= datetime.now(UTC):
        raise ValueError(f"wait.until({moment.isoformat()}): that is in the past")


def _status(name: str) -> TokenStatus:
    try:
        return TokenStatus(name)
    except ValueError:
        known = [status.value for status in TokenStatus]
        raise ValueError(f"{name!r} is no status of a token{spelling.hint(name, known)}") from None


def _limit(limit: int) -> int:
    if not 1 <= limit <= LARGEST_PAGE:
        raise ValueError(f"limit={limit!r} must be 1 to {LARGEST_PAGE}; use `async for` to go through more")
    return limit


wait = Wait()
