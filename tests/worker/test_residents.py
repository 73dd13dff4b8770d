from __future__ import annotations

from typing import cast

from detent.worker.attempt import Attempt
from detent.worker.residents import Residents, memory_share

PLENTY = 1 << 60


def attempt(name: str) -> Attempt:
    return cast("Attempt", _Named(name))


class _Named:
    def __init__(self, name: str) -> None:
        self.name = name


def of(most: int, most_bytes: int = PLENTY) -> tuple[Residents, list[Attempt]]:
    evicted: list[Attempt] = []
    return Residents(most, most_bytes, evicted.append), evicted


async def test_beyond_the_limit_those_that_wait_longest_leave() -> None:
    residents, evicted = of(2)
    waiting = [attempt(name) for name in "abcde"]
    for one in waiting:
        residents.add(one)
    assert (evicted, len(residents)) == (waiting[:3], 2)
    residents.close()


async def test_one_that_goes_on_is_not_evicted() -> None:
    residents, evicted = of(1)
    first, second = attempt("a"), attempt("b")
    residents.add(first)
    residents.remove(first)
    residents.remove(first)
    residents.add(second)
    assert not evicted
    residents.close()


async def test_a_tenth_leaves_when_memory_is_short() -> None:
    residents, evicted = of(100, most_bytes=1)
    waiting = [attempt(str(number)) for number in range(30)]
    for one in waiting:
        residents.add(one)
    residents._look()
    assert evicted == waiting[:3]
    residents.close()


async def test_all_stay_while_there_is_memory() -> None:
    residents, evicted = of(100)
    residents.add(attempt("a"))
    residents._look()
    assert not evicted
    residents.close()


def test_runners_share_what_memory_there_is() -> None:
    assert 0 < memory_share(4) <= memory_share(2) // 2 + 1
