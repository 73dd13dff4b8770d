"""HTTP requests that are made again: after which statuses and failures, and when."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias, TypedDict, cast

from detent import duration
from detent.duration import Duration
from detent.errors import DefinitionError
from detent.protocol import run_error
from detent.protocol.codec import JsonValue
from detent.protocol.retry import Retry
from detent.sdk import scope as run_scope
from detent.sdk import statuses
from detent.sdk.statuses import Statuses

if TYPE_CHECKING:
    import httpx

Sleep: TypeAlias = Callable[[float], Awaitable[None]]

_THRICE = Retry()
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class ResetFormat(StrEnum):
    """How a server says when it may be asked again."""

    UNIX_SECONDS = "unix_seconds"
    UNIX_MILLISECONDS = "unix_milliseconds"
    ISO_8601 = "iso_8601"
    SECONDS = "seconds"
    """From now, as `retry-after` does."""
    DURATION = "duration"
    """From now: "1m30.5s", "20ms"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AtReset:
    """Try again when the headers of the response say so; a response that does not say when is returned as it is."""

    reset: str
    """The header that says when the limit begins anew, such as "x-ratelimit-reset" or "retry-after"."""
    format: ResetFormat = ResetFormat.SECONDS
    remaining: str | None = None
    """The header that says how much of the limit is left. Where something is, the next try follows as `Retry()` says."""
    limit: str | None = None
    """The header that names the limit: told in the log of the run."""
    max_attempts: int = 3

    def pause(self, response: httpx.Response, number: int) -> float | None:
        """Return the seconds until the next try, after which *number* are over; None when the headers do not say."""
        if (_number(response, self.remaining) or 0) > 0:
            return _THRICE.delay_after(number).total_seconds()
        text = response.headers.get(self.reset)
        try:
            pause = None if text is None else _seconds_until(text, self.format)
        except (ValueError, OverflowError):
            return None
        return None if pause is None or not math.isfinite(pause) else max(0.0, pause)

    def facts(self, response: httpx.Response) -> dict[str, object]:
        """Return what the response says of the limit, for the log."""
        said = {"remaining": _number(response, self.remaining), "limit": _number(response, self.limit)}
        return {name: value for name, value in said.items() if value is not None}


def _number(response: httpx.Response, header: str | None) -> int | None:
    text = "" if header is None else response.headers.get(header, "")
    return int(text) if text.isdecimal() else None


Strategy: TypeAlias = "Retry | AtReset"


def _default_statuses() -> Mapping[Statuses, Strategy]:
    return {"408, 409, 429, 5xx": _THRICE}


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchRetry:
    """What is tried again, and how."""

    by_status: Mapping[Statuses, Strategy] = field(default_factory=_default_statuses)
    """The keys are statuses: 429, "429", "5xx", "500-599", "408, 429, 5xx" or `range(500, 600)`. The first that holds counts."""
    retry_if: Callable[[httpx.Response], bool] | None = None
    """Asked about a response whose status is named: False means that it is the answer."""
    timeout: Retry | None = _THRICE
    connection: Retry | None = _THRICE
    """The server could not be reached, or broke off."""

    def __post_init__(self) -> None:
        for key in self.by_status:
            try:
                statuses.read(key)
            except DefinitionError as error:
                raise DefinitionError(f"FetchRetry(by_status=): {error}") from None

    def of_status(self, status: int) -> Strategy | None:
        """Return what is done about a status.

        >>> FetchRetry(by_status={"5xx": Retry(max_attempts=5)}).of_status(404) is None
        True
        """
        return next((strategy for key, strategy in self.by_status.items() if statuses.contains(key, status)), None)

    def of_response(self, response: httpx.Response) -> Strategy | None:
        """Return what is done about a response; None: it is the answer."""
        strategy = self.of_status(response.status_code)
        return strategy if strategy is None or self.retry_if is None or self.retry_if(response) else None

    def of_failure(self, error: httpx.TransportError) -> Retry | None:
        """Return what is done about a request without a response."""
        import httpx

        return self.timeout if isinstance(error, httpx.TimeoutException) else self.connection


DEFAULT = FetchRetry()
"""408, 409, 429, 5xx, time-outs and broken connections, each as `Retry()` says."""


class FetchOptions(TypedDict, total=False):
    """What a request may say. `client` is one of your own, which stays open; `timeout` bounds each try as httpx's does."""

    method: str
    params: Mapping[str, str | int | float | bool | None]
    headers: Mapping[str, str]
    json: JsonValue
    content: str | bytes
    data: Mapping[str, str]
    timeout: Duration
    client: httpx.AsyncClient


async def fetch(url: str, retry: FetchRetry, options: FetchOptions, sleep: Sleep) -> httpx.Response:
    """Make a request until *retry* has nothing to say about what came of it."""
    import httpx

    given = dict(options)
    method = str(given.pop("method", "GET"))
    if "timeout" in given:
        given["timeout"] = duration.seconds(cast("Duration", given["timeout"]))
    async with AsyncExitStack() as stack:
        client = cast("httpx.AsyncClient | None", given.pop("client", None))
        if client is None:
            client = await stack.enter_async_context(httpx.AsyncClient())
        number = 1
        while True:
            try:
                response = await client.request(method, url, **given)  # type: ignore[arg-type]  # as FetchOptions says
            except httpx.TransportError as error:
                pause = _after_failure(retry.of_failure(error), number, error)
                if pause is None:
                    raise
            else:
                pause = _after_response(retry.of_response(response), number, response)
                if pause is None:
                    return response
            await sleep(pause)
            number += 1


def _after_failure(policy: Retry | None, number: int, error: httpx.TransportError) -> float | None:
    """Return the seconds until the next try; None: there is none."""
    if policy is None or number >= policy.max_attempts:
        return None
    pause = policy.delay_after(number).total_seconds()
    _log(error.request, f"failed: {run_error.from_exception(error)}", number, pause, {})
    return pause


def _after_response(strategy: Strategy | None, number: int, response: httpx.Response) -> float | None:
    """Return the seconds until the next try; None: this response is the answer. Raises when it was the last try."""
    facts: dict[str, object] = {}
    match strategy:
        case None:
            return None
        case Retry():
            pause: float | None = strategy.delay_after(number).total_seconds()
        case AtReset():
            pause, facts = strategy.pause(response, number), strategy.facts(response)
    if pause is None:
        return None
    if number >= strategy.max_attempts:
        response.raise_for_status()
        return None
    _log(response.request, f"was answered with {response.status_code}", number, pause, facts)
    return pause


def _log(request: httpx.Request, came: str, number: int, pause: float, facts: Mapping[str, object]) -> None:
    present = run_scope.current()
    if present is None:
        return
    # A query and the part before an @ may hold secrets.
    place = request.url.copy_with(query=None, fragment=None, userinfo=b"")
    text = f"try {number} of {request.method} {place} {came}; it is followed by another in {pause:g} s"
    present.log("warn", text, {"try": number, **facts})


def _seconds_until(text: str, said: ResetFormat) -> float:
    now = datetime.now(UTC)
    match said:
        case ResetFormat.SECONDS:
            return float(text)
        case ResetFormat.DURATION:
            return _seconds_in(text)
        case ResetFormat.UNIX_SECONDS:
            return float(text) - now.timestamp()
        case ResetFormat.UNIX_MILLISECONDS:
            return float(text) / 1000 - now.timestamp()
        case ResetFormat.ISO_8601:
            moment = datetime.fromisoformat(text)
            return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()


def _seconds_in(text: str) -> float:
    """Return the length of a duration, which may have fractions unlike a `Duration`."""
    parts = _PART.findall(text)
    if "".join(number + unit for number, unit in parts) != text or not parts:
        raise ValueError(text)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
