from __future__ import annotations

from detent.protocol.execution import Isolation
from detent.worker.room import Room


def test_a_call_asks_for_half_the_slots_so_that_the_next_can_be_under_way() -> None:
    room = Room({Isolation.ASYNC: 10, Isolation.THREAD: 3})
    assert room.ask() == {Isolation.ASYNC: 5, Isolation.THREAD: 2}


def test_a_full_kind_is_not_asked_for() -> None:
    room = Room({Isolation.ASYNC: 2, Isolation.THREAD: 1})
    room.take(Isolation.THREAD)
    assert room.ask() == {Isolation.ASYNC: 1}
    assert room.has_any


def test_a_slot_is_asked_for_again_when_enough_are_free_to_be_worth_a_call() -> None:
    room = Room({Isolation.ASYNC: 100})
    for _ in range(100):
        room.take(Isolation.ASYNC)
    worth = []
    for _ in range(25):
        room.give(Isolation.ASYNC)
        worth.append(room.is_worth_asking(Isolation.ASYNC))
    assert worth.index(True) == 24
