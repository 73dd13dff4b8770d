"""What many ask for in one moment goes out as one call, and each gets his own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from detent.errors import ApiConnectionError
from detent.protocol.coalesce import Coalescer


class Calls:
    """Notes the calls; `double` answers, or raises for what `bad` holds."""

    def __init__(self) -> None:
        self.made: list[list[int]] = []
        self.has_begun = asyncio.Event()
        self.bad: set[int] = set()
        self.gate: asyncio.Event | None = None

    async def double(self, items: Sequence[int]) -> list[int]:
        self.made.append(list(items))
        self.has_begun.set()
        if self.gate is not None:
            await self.gate.wait()
        for item in items:
            if item in self.bad:
                raise ValueError(f"{item} is bad")
        return [item * 2 for item in items]


async def test_one_moment_is_one_call() -> None:
    calls = Calls()
    ask = Coalescer(calls.double)

    assert await asyncio.gather(*(ask(n) for n in range(10))) == [n * 2 for n in range(10)]
    assert calls.made == [list(range(10))]


async def test_what_comes_while_a_call_is_out_goes_out_together() -> None:
    calls = Calls()
    calls.gate = asyncio.Event()
    ask = Coalescer(calls.double)

    first = ask(0)
    await calls.has_begun.wait()
    rest = [ask(n) for n in range(1, 5)]
    calls.gate.set()

    assert await asyncio.gather(first, *rest) == [0, 2, 4, 6, 8]
    assert calls.made == [[0], [1, 2, 3, 4]]


async def test_calls_are_bounded_in_number_and_weight() -> None:
    calls = Calls()
    counted, weighed = Coalescer(calls.double, most=3), Coalescer(calls.double, weigh=lambda item: item, heaviest=10)

    await asyncio.gather(*(counted(n) for n in range(7)))
    assert [len(call) for call in calls.made] == [3, 3, 1]
    calls.made.clear()
    await asyncio.gather(*(weighed(n) for n in (6, 4, 1, 50, 2)))
    assert calls.made == [[6, 4], [1], [50], [2]]


async def test_error_reaches_only_who_caused_it() -> None:
    calls = Calls()
    calls.bad = {3, 6}
    ask = Coalescer(calls.double)

    answers = await asyncio.gather(*(ask(n) for n in range(8)), return_exceptions=True)

    assert [n for n, answer in enumerate(answers) if isinstance(answer, ValueError)] == [3, 6]
    assert [answer for answer in answers if isinstance(answer, int)] == [0, 2, 4, 8, 10, 14]


async def test_lost_connection_is_everybodys() -> None:
    tries = 0

    async def fail(items: Sequence[int]) -> list[int]:
        nonlocal tries
        tries += 1
        raise ApiConnectionError("away")

    ask = Coalescer(fail)
    answers = await asyncio.gather(*(ask(n) for n in range(5)), return_exceptions=True)

    assert all(isinstance(answer, ApiConnectionError) for answer in answers)
    assert tries == 1


async def test_cancelled_caller_leaves_the_shared_call() -> None:
    calls = Calls()
    calls.gate = asyncio.Event()
    ask = Coalescer(calls.double)
    callers = [ask(n) for n in range(3)]
    await calls.has_begun.wait()

    callers[1].cancel()
    calls.gate.set()

    assert await asyncio.gather(callers[0], callers[2]) == [0, 4]


async def test_item_cancelled_before_it_left_is_not_sent() -> None:
    calls = Calls()
    ask = Coalescer(calls.double)
    callers = [ask(n) for n in range(3)]
    callers[1].cancel()

    assert await asyncio.gather(callers[0], callers[2]) == [0, 4]
    assert calls.made == [[0, 2]]


@pytest.mark.parametrize("in_flight", [1, 2])
async def test_so_many_calls_are_out_at_once(in_flight: int) -> None:
    calls = Calls()
    calls.gate = asyncio.Event()
    double: Callable[[Sequence[int]], Awaitable[Sequence[int]]] = calls.double
    ask = Coalescer(double, most=1, in_flight=in_flight)
    callers = [ask(n) for n in range(4)]
    for _ in range(5):
        await asyncio.sleep(0)

    assert len(calls.made) == in_flight
    calls.gate.set()
    await asyncio.gather(*callers)
    assert len(calls.made) == 4
