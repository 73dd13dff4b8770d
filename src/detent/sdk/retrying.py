"""`retry`: trying again inside of a run, in its process and with its slot kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from inspect import Parameter, signature
from typing import TYPE_CHECKING, TypedDict, TypeVar, Unpack, cast, overload

from detent.duration import Duration
from detent.errors import BlockingCallError
from detent.protocol import run_error
from detent.protocol.retry import Retry
from detent.sdk import scope as run_scope
from detent.sdk import spelling
from detent.sdk.blocking import blocking, carry_out, is_on_loop
from detent.sdk.fetching import DEFAULT, FetchOptions, FetchRetry
from detent.sdk.stepping import NEVER_RETRIED

if TYPE_CHECKING:
    import httpx

R = TypeVar("R")


class RetryOptions(TypedDict, total=False):
    """What `retry.on_throw` may be told instead of a `Retry`, under the names and with the defaults that it has there."""

    max_attempts: int
    factor: float
    min_timeout: Duration
    max_timeout: Duration
    randomize: bool


class Retrying:
    """Retries of a piece of a task. They sleep in the process; what should outlive it is a `step(retry=...)`."""

    label = "retry"

    def __init__(self) -> None:
        self.sync = RetryingSync(self)

    @overload
    async def on_throw(
        self, fn: Callable[[], Awaitable[R]], retry: Retry | int | None = None, **options: Unpack[RetryOptions]
    ) -> R: ...
    @overload
    async def on_throw(
        self, fn: Callable[[int], Awaitable[R]], retry: Retry | int | None = None, **options: Unpack[RetryOptions]
    ) -> R: ...
    async def on_throw(
        self, fn: Callable[..., Awaitable[R]], retry: Retry | int | None = None, **options: Unpack[RetryOptions]
    ) -> R:
        """Call *fn* until it raises no more; what the last try raises is raised. One with a parameter gets the number of the try.

        Example::

            rate = await retry.on_throw(lambda: fetch_rate("EUR"), max_attempts=5, min_timeout="100ms")

        Three tries, as `Retry()` says, unless a `Retry`, a number of tries or the options say otherwise. `AbortTaskRunError` ends
        the tries at once, and so does the end of the run.
        """
        tries, call = Tries(_policy(retry, options)), _numbered(fn)
        while True:
            try:
                return await call(tries.number)
            except NEVER_RETRIED:
                raise
            except Exception as error:
                if tries.is_last:
                    raise
                pause = tries.fail(error)
            await _sleep(pause)

    async def fetch(self, url: str, *, retry: FetchRetry = DEFAULT, **request: Unpack[FetchOptions]) -> httpx.Response:
        """Make an HTTP request, again where *retry* says so, and return its response.

        Example::

            response = await retry.fetch("https://api.example.com/rates", timeout="5s")

        When no try is left it raises httpx's `HTTPStatusError`, `TimeoutException` or `TransportError`. A status that *retry*
        does not name is returned as it is.
        """
        from detent.sdk import fetching

        return await fetching.fetch(url, retry, request, _sleep)


class Tries:
    """How often something was tried, and how long to wait for the next time."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self.number = 1

    @property
    def is_last(self) -> bool:
        return self.number >= self._retry.max_attempts

    def fail(self, error: Exception) -> float:
        """Note that a try has failed; return the seconds until the next."""
        pause = self._retry.delay_after(self.number).total_seconds()
        present = run_scope.current()
        if present is not None:
            text = f"try {self.number} failed and is followed by another in {pause:g} s: {run_error.from_exception(error)}"
            present.log("warn", text)
        self.number += 1
        return pause


class RetryingSync:
    """`retry` for tasks written as `def`: the function is called in the calling thread."""

    def __init__(self, retrying: Retrying) -> None:
        self.fetch = blocking(retrying.fetch)

    @overload
    def on_throw(
        self, fn: Callable[[], R], retry: Retry | int | None = None, **options: Unpack[RetryOptions]
    ) -> R: ...
    @overload
    def on_throw(
        self, fn: Callable[[int], R], retry: Retry | int | None = None, **options: Unpack[RetryOptions]
    ) -> R: ...
    def on_throw(self, fn: Callable[..., R], retry: Retry | int | None = None, **options: Unpack[RetryOptions]) -> R:
        """`retry.on_throw` for a plain function."""
        if is_on_loop():
            raise BlockingCallError("retry.sync.on_throw", "retry.on_throw(…)")
        tries, call = Tries(_policy(retry, options)), _numbered(fn)
        while True:
            try:
                return call(tries.number)
            except NEVER_RETRIED:
                raise
            except Exception as error:
                if tries.is_last:
                    raise
                pause = tries.fail(error)
            carry_out(_sleep(pause))


def _policy(retry: Retry | int | None, options: Mapping[str, object]) -> Retry:
    if unknown := options.keys() - RetryOptions.__annotations__:
        name = min(unknown)
        raise TypeError(f"retry.on_throw: unknown option {name!r}{spelling.hint(name, RetryOptions.__annotations__)}")
    if retry is None:
        return Retry(**cast("RetryOptions", options))
    if options:
        raise TypeError(f"retry.on_throw: give a Retry, or the option {min(options)}=, and not both")
    return Retry(max_attempts=retry) if isinstance(retry, int) else retry


def _numbered(fn: Callable[..., R]) -> Callable[[int], R]:
    """Return *fn* as a function of the number of the try."""
    return fn if _must_be_given_one(fn) else lambda _: fn()


def _must_be_given_one(fn: Callable[..., object]) -> bool:
    try:
        parameters = signature(fn).parameters.values()
    except (TypeError, ValueError):  # some that are written in C have none
        return False
    positional = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return any(each.kind in positional and each.default is Parameter.empty for each in parameters)


async def _sleep(seconds: float) -> None:
    from asyncio import sleep

    await sleep(seconds)


retry = Retrying()
