"""What code is given while it awaits several things, by itself: no database, no runner."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from detent.protocol import ids
from detent.protocol.journal import JournalEntry
from detent.protocol.operations import OperationKind, Stamp
from detent.worker import answers as answers_module
from detent.worker.answers import Answers
from detent.worker.journal import ABANDONED, FAILED, Journal


def entry(operation: str, number: int, *seen: str) -> JournalEntry:
    stamp = Stamp(answers=len(seen), seen=seen or None)
    return JournalEntry(
        operation=operation, kind=OperationKind.CHILD, fingerprint="t", ref="", number=number, stamp=stamp
    )


class Code:
    """Awaits operations, each in a task of its own, and notes what came in which order."""

    def __init__(self, *entries: JournalEntry, abandon: Callable[[str], bool] = lambda _: False) -> None:
        self.journal = Journal(ids.new_run_id(), 1, entries)
        self.turns = 0
        self.came: list[str] = []
        self.answers: Answers[str] = Answers(
            self.journal, asyncio.get_running_loop(), turns=lambda: self.turns, abandon=abandon
        )
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def ask(self, *operations: str, then: Callable[[], Awaitable[object]] | None = None) -> None:
        for operation in operations:
            self.journal.take(operation, OperationKind.CHILD, "t")
            self.answers.expect(operation)
            self.tasks[operation] = asyncio.create_task(self._await(operation, then))

    async def _await(self, operation: str, then: Callable[[], Awaitable[object]] | None) -> None:
        try:
            self.came.append(await self.answers.get(operation))
            self.turns += 1
            if then is not None:
                await then()
        except asyncio.CancelledError:
            self.answers.give_up(operation)
            raise
        finally:
            self.answers.forget(operation)

    def arrive(self, *operations: str) -> None:
        for operation in operations:
            self.answers.arrive(operation, f"answer of {operation}")

    async def ended(self, *operations: str) -> None:
        async with asyncio.timeout(10):
            await asyncio.wait([self.tasks[operation] for operation in operations])


def of(*operations: str) -> list[str]:
    return [f"answer of {operation}" for operation in operations]


async def test_the_only_thing_awaited_is_answered_at_once() -> None:
    code = Code()
    code.ask("main/0")
    code.arrive("main/0")
    assert code.journal._given == 1
    await code.ended("main/0")


async def test_answers_come_one_at_a_time_in_the_order_of_arrival() -> None:
    code = Code()
    code.ask("a", "b", "c")
    code.arrive("c", "a", "b")
    assert code.journal._given == 1
    await code.ended("a", "b", "c")
    assert code.came == of("c", "a", "b")


async def test_the_next_answer_waits_until_the_code_has_come_to_rest() -> None:
    given: list[int] = []

    async def work_on() -> None:
        for _ in range(20):
            await asyncio.sleep(0)
            code.turns += 1
        given.append(code.journal._given)

    code = Code()
    code.ask("a", then=work_on)
    code.ask("b")
    code.arrive("a", "b")
    await code.ended("a", "b")
    assert given == [1]


async def test_a_second_answer_and_one_that_nobody_expects_are_dropped() -> None:
    code = Code()
    code.ask("a", "b")
    code.answers.arrive("a", "first")
    code.answers.arrive("a", "second")
    code.arrive("c", "b")
    await code.ended("a", "b")
    assert code.came == ["first", *of("b")]


async def test_a_replay_answers_in_the_order_of_before_whatever_arrives_first() -> None:
    code = Code(entry("a", 1), entry("b", 2), entry("c", 3, "b", "a"))
    code.ask("a", "b")
    code.arrive("a")
    assert code.journal._given == 0
    code.arrive("b")
    await code.ended("a", "b")
    assert code.came == of("b", "a")


async def test_a_replay_holds_an_answer_back_until_all_is_asked_for_that_was_before() -> None:
    code = Code(entry("a", 1), entry("b", 2), entry("c", 3, "b"))
    code.ask("b")
    code.arrive("b")
    assert code.journal._given == 0
    code.ask("a")
    await code.ended("b")
    assert code.came == of("b")
    code.tasks["a"].cancel()
    await code.ended("a")


async def test_an_answer_that_was_held_back_is_given_when_the_last_thing_is_asked_for_though_that_has_none() -> None:
    code = Code(entry("a", 1), entry("b", 2))
    code.ask("a")
    code.arrive("a")
    await asyncio.sleep(0)
    assert code.came == []
    code.ask("b")
    await code.ended("a")
    assert code.came == of("a")


async def test_an_answer_that_was_held_back_is_given_when_what_it_was_held_back_for_is_given_up() -> None:
    code = Code(entry("a", 1), entry("b", 2))
    code.ask("a")
    code.arrive("a")
    code.ask("b")
    code.tasks["b"].cancel()
    await code.ended("a", "b")
    assert code.came == of("a")


async def test_a_replay_whose_code_does_not_ask_again_loses_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_module, "PATIENCE", 0.01)
    code = Code(entry("a", 1), entry("b", 2))
    code.ask("b")
    code.arrive("b")
    await code.ended("b")
    assert code.came == of("b")


async def test_what_was_given_up_is_given_up_again_and_not_answered() -> None:
    def time_out(operation: str) -> bool:
        return code.tasks[operation].cancel()

    code = Code(entry("a", 1), entry("b", 2), entry("c", 3, ABANDONED + "a", "b"), abandon=time_out)
    code.ask("a", "b")
    code.arrive("a", "b")
    await code.ended("a", "b")
    assert code.came == of("b")
    assert code.tasks["a"].cancelled()


async def test_what_was_refused_before_has_no_turn() -> None:
    code = Code(entry("a", 1), entry("b", 2, FAILED + "x", "a"))
    code.ask("a")
    code.arrive("a")
    await code.ended("a")
    assert code.came == of("a")


async def test_code_that_gives_up_in_the_moment_of_its_answer_is_recorded_as_giving_up() -> None:
    code = Code()
    code.ask("a", "b")
    await asyncio.sleep(0)
    code.arrive("a")
    code.tasks["a"].cancel()
    await code.ended("a")
    assert code.journal.stamp(1).seen == (ABANDONED + "a",)
    code.arrive("b")
    await code.ended("b")


async def test_a_refusal_reaches_everybody_at_once() -> None:
    code = Code()
    code.ask("a", "b")
    await asyncio.sleep(0)
    code.answers.refuse(RuntimeError("gone"))
    outcomes = await asyncio.gather(*code.tasks.values(), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["gone", "gone"]
    assert len(code.answers) == 0


@pytest.mark.parametrize("turns", range(2 * answers_module.QUIET_TURNS))
async def test_what_had_arrived_is_not_given_to_code_that_was_refused_meanwhile(turns: int) -> None:
    code = Code()
    code.ask("a", "b", "c")
    code.arrive("a", "b", "c")
    for _ in range(turns):
        await asyncio.sleep(0)
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    code.answers.refuse(RuntimeError("gone"))
    await asyncio.gather(*code.tasks.values(), return_exceptions=True)
    rested = asyncio.Event()
    code.answers.at_rest(rested.set)
    async with asyncio.timeout(10):
        await rested.wait()
    assert failed == []


async def test_what_waits_for_rest_happens_when_nothing_can_be_given() -> None:
    code = Code(entry("a", 1), entry("b", 2), entry("c", 3, "b", "a"))
    code.ask("a", "b")
    code.arrive("a", "b")
    happened = asyncio.Event()
    code.answers.at_rest(lambda: (code.came.append("time"), happened.set()))
    async with asyncio.timeout(10):
        await happened.wait()
    assert code.came == [*of("b", "a"), "time"]
