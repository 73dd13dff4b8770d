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
from detent.protocol.codec import JsonValue
from detent.protocol.retry import Retry

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
    """Try again when a header of the response says so; a response without it is returned as it is."""

    header: str
    format: ResetFormat = ResetFormat.SECONDS
    max_attempts: int = 3

    def pause(self, response: httpx.Response) -> float | None:
        """Return the seconds until then, None when the header does not say."""
        text = response.headers.get(self.header)
        try:
            pause = None if text is None else _seconds_until(text, self.format)
        except (ValueError, OverflowError):
            return None
        return None if pause is None or not math.isfinite(pause) else max(0.0, pause)


Strategy: TypeAlias = "Retry | AtReset"


def _default_statuses() -> Mapping[str, Strategy]:
    return dict.fromkeys(("408", "409", "429", "500-599"), _THRICE)


def _bounds(statuses: str) -> tuple[int, int]:
    lowest, _, highest = statuses.partition("-")
    try:
        return int(lowest), int(highest or lowest)
    except ValueError:
        raise DefinitionError(f'FetchRetry: {statuses!r} is no status; one is "429", a range of them "500-599"') from None


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchRetry:
    """What is tried again, and how. A status is a key such as "429" or "500-599"; the first that holds counts."""

    by_status: Mapping[str, Strategy] = field(default_factory=_default_statuses)
    timeout: Retry | None = _THRICE
    connection: Retry | None = _THRICE
    """The server could not be reached, or broke off."""

    def __post_init__(self) -> None:
        for statuses in self.by_status:
            _bounds(statuses)

    def of_status(self, status: int) -> Strategy | None:
        """Return what is done about a status.

        >>> FetchRetry(by_status={"500-599": Retry(max_attempts=5)}).of_status(404) is None
        True
        """
        for statuses, strategy in self.by_status.items():
            lowest, highest = _bounds(statuses)
            if lowest <= status <= highest:
                return strategy
        return None


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
                pause = _after_failure(retry.timeout if isinstance(error, httpx.TimeoutException) else retry.connection, number)
                if pause is None:
                    raise
            else:
                pause = _after_response(retry.of_status(response.status_code), number, response)
                if pause is None:
                    return response
            await sleep(pause)
            number += 1


def _after_failure(policy: Retry | None, number: int) -> float | None:
    return None if policy is None or number >= policy.max_attempts else policy.delay_after(number).total_seconds()


def _after_response(strategy: Strategy | None, number: int, response: httpx.Response) -> float | None:
    """Return the seconds until the next try; None: this response is the answer. Raises when it was the last try."""
    pause = None
    if isinstance(strategy, Retry):
        pause = strategy.delay_after(number).total_seconds()
    elif strategy is not None:
        pause = strategy.pause(response)
    if strategy is not None and pause is not None and number >= strategy.max_attempts:
        response.raise_for_status()
        return None
    return pause


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
