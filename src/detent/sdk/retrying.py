"""`retry`: trying again inside of a run, in its process and with its slot kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar, Unpack

from detent.protocol import run_error
from detent.protocol.retry import Retry
from detent.sdk import scope as run_scope
from detent.sdk.blocking import blocking, carry_out
from detent.sdk.fetching import DEFAULT, FetchOptions, FetchRetry
from detent.sdk.stepping import NEVER_RETRIED

if TYPE_CHECKING:
    import httpx

R = TypeVar("R")

_THRICE = Retry()


class Retrying:
    """Retries of a piece of a task. They sleep in the process; what should outlive it is a `step(retry=...)`."""

    label = "retry"

    def __init__(self) -> None:
        self.sync = RetryingSync(self)

    async def on_throw(self, fn: Callable[[int], Awaitable[R]], retry: Retry | int = _THRICE) -> R:
        """Call *fn* with the number of the try until it raises no more; what the last try raises is raised.

        Example::

            rate = await retry.on_throw(lambda number: fetch_rate("EUR"), Retry(max_attempts=5, min_timeout="100ms"))

        `AbortTaskRunError` ends the tries at once, and so does the end of the run.
        """
        tries = Tries(retry)
        while True:
            try:
                return await fn(tries.number)
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

    def __init__(self, retry: Retry | int) -> None:
        self._retry = Retry(max_attempts=retry) if isinstance(retry, int) else retry
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

    def on_throw(self, fn: Callable[[int], R], retry: Retry | int = _THRICE) -> R:
        """`retry.on_throw` for a plain function."""
        tries = Tries(retry)
        while True:
            try:
                return fn(tries.number)
            except NEVER_RETRIED:
                raise
            except Exception as error:
                if tries.is_last:
                    raise
                pause = tries.fail(error)
            carry_out(_sleep(pause))


async def _sleep(seconds: float) -> None:
    from asyncio import sleep

    await sleep(seconds)


retry = Retrying()
