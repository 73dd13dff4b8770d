from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from detent.errors import ApiConnectionError
from detent.worker import outbox as outbox_module
from detent.worker.outbox import Outbox


async def test_items_of_one_moment_go_out_as_one_call() -> None:
    calls: list[list[int]] = []

    async def call(items: Sequence[int]) -> None:
        calls.append(list(items))

    outbox = Outbox(call)
    for number in range(5):
        outbox.put(number)
    await outbox.emptied()
    assert calls == [[0, 1, 2, 3, 4]]


async def test_items_gather_while_a_call_is_out() -> None:
    calls: list[list[int]] = []
    release, begun = asyncio.Event(), asyncio.Event()

    async def call(items: Sequence[int]) -> None:
        calls.append(list(items))
        begun.set()
        await release.wait()

    outbox = Outbox(call)
    outbox.put(0)
    await begun.wait()
    outbox.put(1)
    outbox.put(2)
    release.set()
    await outbox.emptied()
    assert calls == [[0], [1, 2]]


async def test_a_call_is_repeated_until_the_backend_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "pauses", lambda: iter([0.0] * 10))
    answers: list[tuple[int, int | None]] = []
    failures = 3

    async def call(items: Sequence[int]) -> list[int]:
        nonlocal failures
        if failures:
            failures -= 1
            raise ApiConnectionError("away")
        return [item * 2 for item in items]

    outbox: Outbox[int, int] = Outbox(call, delivered=lambda item, answer: answers.append((item, answer)))
    outbox.put(1)
    outbox.put(2)
    await outbox.emptied()
    assert answers == [(1, 2), (2, 4)]


async def test_an_item_that_is_refused_does_not_take_its_neighbours_with_it() -> None:
    delivered: list[int] = []
    refused: list[int] = []

    async def call(items: Sequence[int]) -> list[int]:
        if 3 in items:
            raise ValueError("not three")
        return list(items)

    outbox: Outbox[int, int] = Outbox(
        call, delivered=lambda item, _: delivered.append(item), refused=lambda item, _: refused.append(item)
    )
    for number in range(6):
        outbox.put(number)
    await outbox.emptied()
    assert (sorted(delivered), refused) == ([0, 1, 2, 4, 5], [3])
