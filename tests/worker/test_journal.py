from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from detent.errors import JournalFullError, NonDeterminismError
from detent.protocol import ids
from detent.protocol.journal import JournalEntry
from detent.protocol.operations import OperationKind, Stamp
from detent.worker.journal import ABANDONED, FAILED, Journal

RUN = ids.new_run_id()
CHILD = OperationKind.CHILD


def entry(
    operation: str,
    number: int = 1,
    *,
    kind: OperationKind = CHILD,
    fingerprint: str = "charge",
    attempt: int = 1,
    answers: int = 0,
    seen: tuple[str, ...] | None = None,
    recorded_at: datetime | None = None,
) -> JournalEntry:
    return JournalEntry(
        operation=operation,
        kind=kind,
        fingerprint=fingerprint,
        ref="",
        number=number,
        attempt=attempt,
        stamp=Stamp(answers=answers, seen=seen),
        recorded_at=recorded_at,
    )


def take(journal: Journal, operation: str) -> JournalEntry | None:
    return journal.take(operation, CHILD, "charge")


def order_of(*entries: JournalEntry) -> list[str | None]:
    """The answers that a replay gives, when it gives them all."""
    journal = Journal(RUN, 1, entries)
    order: list[str | None] = []
    while journal.next_answer is not None:
        order.append(journal.next_answer)
        journal.skip()
    return order


# ---- what the code asks for ----


def test_a_recorded_operation_answers_once_and_at_its_place_only() -> None:
    recorded = entry("main/0")
    journal = Journal(RUN, 1, [recorded])
    assert take(journal, "main/t~0/0") is None
    assert take(journal, "main/0") is recorded
    assert take(journal, "main/0") is None


def test_a_different_kind_or_task_is_refused_naming_both() -> None:
    with pytest.raises(NonDeterminismError, match=r"child of charge.*time"):
        Journal(RUN, 1, [entry("main/0")]).take("main/0", OperationKind.TIME, "time")
    with pytest.raises(NonDeterminismError, match=r"child of charge.*child of refund"):
        Journal(RUN, 1, [entry("main/0")]).take("main/0", CHILD, "refund")


def test_a_replay_that_leaves_out_what_comes_later_on_its_path_is_refused() -> None:
    journal = Journal(RUN, 1, [entry("main/1")])
    with pytest.raises(NonDeterminismError, match="main/1"):
        take(journal, "main/0")


def test_what_was_refused_is_asked_for_again() -> None:
    journal = Journal(RUN, 1, [entry("main/1", answers=1, seen=(FAILED + "main/0",))])
    assert take(journal, "main/0") is None
    assert not journal.was_abandoned("main/0")


def test_a_replay_lasts_until_all_is_asked_for_and_all_answers_are_given() -> None:
    journal = Journal(RUN, 1, [entry("main/0"), entry("main/1", 2, answers=1)])
    seen = [journal.is_replaying]
    take(journal, "main/0")
    journal.give("main/0")
    seen.append(journal.is_replaying)
    take(journal, "main/1")
    seen.append(journal.is_replaying)
    assert seen == [True, True, False]


def test_what_a_path_did_before_is_known_until_it_asks_for_its_last_operation_again() -> None:
    journal = Journal(RUN, 1, [entry("main/0"), entry("main/1", 2), entry("main/child~0/0", 3)])
    assert [journal.has_beyond("main/", asked) for asked in range(3)] == [True, True, False]
    assert journal.has_beyond("main/child~0/", 0)
    assert not journal.has_beyond("main/child~1/", 0)


def test_a_new_attempt_begins_with_an_empty_journal_but_for_the_steps_it_keeps() -> None:
    done = entry("main/fetch#0", kind=OperationKind.STEP, fingerprint="EUR")
    journal = Journal(RUN, 2, [done, entry("main/0", 2)])
    assert not journal.is_replaying
    assert take(journal, "main/0") is None
    assert journal.kept("main/fetch#0", "EUR") is done
    assert journal.kept("main/fetch#0", "USD") is None


def test_what_was_asked_for_inside_of_a_step_that_is_done_is_not_asked_for_again() -> None:
    journal = Journal(
        RUN,
        1,
        [
            entry("main/fetch#0/0", 1),
            entry("main/fetch#0/inner#0", 2, kind=OperationKind.STEP, answers=1),
            entry("main/fetch#0", 3, kind=OperationKind.STEP, answers=2),
            entry("main/0", 4, answers=3, seen=("main/fetch#0/0", "main/fetch#0/inner#0", "main/fetch#0")),
        ],
    )
    assert journal.take("main/fetch#0", OperationKind.STEP, "charge") is not None
    while journal.next_answer != "main/fetch#0":
        assert journal.next_answer is not None
        assert journal.next_answer.startswith(FAILED)
        journal.skip()
    journal.give("main/fetch#0")
    assert journal.is_due is False
    assert take(journal, "main/0") is not None
    assert not journal.is_replaying


def test_an_operation_inside_of_a_step_that_is_not_done_answers() -> None:
    inner = entry("main/fetch#0/0")
    assert take(Journal(RUN, 1, [inner]), "main/fetch#0/0") is inner


def test_the_moment_of_a_replay_is_that_of_the_operation_asked_for_last() -> None:
    first, second = (datetime(2030, 1, day, tzinfo=UTC) for day in (1, 2))
    journal = Journal(RUN, 1, [entry("main/0", recorded_at=first), entry("main/1", 2, answers=1, recorded_at=second)])
    moments = [journal.moment]
    for operation in ("main/0", "main/1", "main/2"):
        take(journal, operation)
        moments.append(journal.moment)
    assert moments == [None, first, second, second]


def test_a_full_journal_refuses_more_and_says_so_before() -> None:
    journal = Journal(RUN, 1, [entry("main/0")], most=5)
    take(journal, "main/0")
    nearly = []
    for number in range(1, 5):
        take(journal, f"main/{number}")
        nearly.append(journal.is_nearly_full)
    assert nearly == [False, False, True, False]
    with pytest.raises(JournalFullError):
        take(journal, "main/5")


# ---- in which order it is answered ----


def test_without_more_said_answers_came_in_the_order_of_recording() -> None:
    assert order_of(entry("main/0", 1), entry("main/1", 2, answers=1), entry("main/2", 3, answers=2)) == [
        "main/0",
        "main/1",
    ]


def test_an_operation_says_which_answers_came_before_it() -> None:
    asked = [entry(f"main/t~{task}/0", number) for number, task in enumerate("abc")]
    after = entry("main/0", 4, answers=3, seen=("main/t~c/0", "main/t~a/0", "main/t~b/0"))
    assert order_of(*asked, after) == ["main/t~c/0", "main/t~a/0", "main/t~b/0"]


def test_an_answer_waits_for_what_was_asked_for_before_it() -> None:
    journal = Journal(RUN, 1, [entry("main/0"), entry("main/1", 2), entry("main/2", 3, answers=1, seen=("main/1",))])
    take(journal, "main/1")
    assert (journal.next_answer, journal.is_due) == ("main/1", False)
    take(journal, "main/0")
    assert journal.is_due
    journal.give("main/1")
    assert not journal.is_due


def test_an_answer_that_came_out_of_its_turn_is_not_given_twice() -> None:
    journal = Journal(RUN, 1, [entry("main/0"), entry("main/1", 2), entry("main/2", 3, answers=2)])
    journal.give("main/1")
    assert journal.next_answer == "main/0"
    journal.give("main/0")
    assert journal.next_answer is None


def test_an_order_that_has_changed_is_said_again() -> None:
    journal = Journal(RUN, 1, [entry("main/0"), entry("main/1", 2), entry("main/2", 3, answers=2)])
    journal.give_up("main/9")
    journal.give("main/0")
    journal.give("main/1")
    assert journal.stamp(1) == Stamp(answers=3, seen=(ABANDONED + "main/9", "main/0", "main/1"))


def test_an_answer_taken_back_after_it_was_told_of_is_told_of_again() -> None:
    journal = Journal(RUN)
    journal.give("main/0")
    journal.confirm(journal.stamp(1))
    journal.give_up("main/0")
    assert journal.stamp(1) == Stamp(answers=1, seen=(ABANDONED + "main/0",))


def test_an_operation_that_was_given_up_is_marked_whether_it_was_recorded_or_not() -> None:
    journal = Journal(RUN)
    journal.stamp(0)
    journal.stamp(1)
    journal.give_up("main/0")
    assert journal.stamp(1).seen == (ABANDONED + "main/0",)


def test_a_time_out_of_code_that_does_one_thing_at_a_time_is_recorded_as_such() -> None:
    journal = Journal(RUN)
    journal.confirm(journal.stamp(0))
    journal.give_up("main/0")
    assert journal.stamp(0) == Stamp(answers=1, seen=(ABANDONED + "main/0",))


def test_code_that_does_one_thing_at_a_time_records_no_order() -> None:
    journal, stamps = Journal(RUN), []
    for number in range(3):
        stamps.append(journal.stamp(0))
        journal.confirm(stamps[-1])
        journal.give(f"main/{number}")
    assert stamps == [Stamp(answers=number) for number in range(3)]


def test_an_answer_taken_back_in_the_same_moment_is_one_given_up() -> None:
    journal = Journal(RUN)
    journal.give("main/0")
    journal.give_up("main/0")
    journal.stamp(1)
    assert journal.stamp(1) == Stamp(answers=1, seen=(ABANDONED + "main/0",))


# ---- any code, any order ----


@dataclass
class Simulation:
    """Code of several tasks, and a database that records what they ask for whenever it likes."""

    random: random.Random
    tasks: int
    length: int
    journal: Journal = field(default_factory=lambda: Journal(RUN))
    asked: dict[int, int] = field(default_factory=dict)
    """How many operations each task has asked for."""
    waiting: dict[str, int] = field(default_factory=dict)
    """Operations asked for, not answered, and whose task waits."""
    in_flight: dict[str, Stamp] = field(default_factory=dict)
    unconfirmed: list[str] = field(default_factory=list)
    recorded: list[JournalEntry] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    asked_after: dict[str, int] = field(default_factory=dict)
    """How many answers had been given when an operation was asked for."""

    def live(self, steps: int) -> None:
        for _ in range(steps):
            self._settle()
            moves = [self._answer, self._answer, self._record, self._record, self._confirm, self._give_up]
            self.random.choice(moves)()

    def _settle(self) -> None:
        """All tasks go on until each waits or has ended, as they do before the next answer is given."""
        free = [task for task in range(self.tasks) if task not in self.waiting.values()]
        for task in free:
            number = self.asked.get(task, 0)
            if number < self.length:
                self.ask(task, f"main/t~{task}/{number}")

    def ask(self, task: int, operation: str) -> JournalEntry | None:
        recorded = take(self.journal, operation)
        if recorded is None:
            self.in_flight[operation] = self.journal.stamp(len(self.waiting))
        self.waiting[operation] = task
        self.asked[task] = self.asked.get(task, 0) + 1
        self.asked_after[operation] = len(self.given)
        return recorded

    def _record(self) -> None:
        if self.in_flight:
            operation = self.random.choice(list(self.in_flight))
            number = max((entry.number for entry in self.recorded), default=0) + 1
            self.recorded.append(replace(entry(operation, number), stamp=self.in_flight.pop(operation)))
            self.unconfirmed.append(operation)

    def _confirm(self) -> None:
        if self.unconfirmed:
            operation = self.unconfirmed.pop(self.random.randrange(len(self.unconfirmed)))
            self.journal.confirm(self._stamp_of(operation))

    def _stamp_of(self, operation: str) -> Stamp:
        return next(entry.stamp for entry in self.recorded if entry.operation == operation)

    def _answer(self) -> None:
        ready = [o for o in self.waiting if o not in self.in_flight and o not in self.unconfirmed]
        if ready:
            operation = self.random.choice(ready)
            self.journal.give(operation)
            if self.random.random() < 0.1:
                self.journal.give_up(operation)
                self.end(operation, ABANDONED + operation)
            else:
                self.end(operation, operation)

    def _give_up(self) -> None:
        if self.waiting and self.random.random() < 0.2:
            operation = self.random.choice(list(self.waiting))
            self.journal.give_up(operation)
            self.in_flight.pop(operation, None)
            self.end(operation, ABANDONED + operation)

    def end(self, operation: str, how: str) -> None:
        del self.waiting[operation]
        self.given.append(how)

    def replay(self) -> Simulation:
        """Run the same code on what was recorded, tasks in any order; return it where the record ends."""
        journal = Journal(RUN, 1, self.random.sample(self.recorded, len(self.recorded)))
        again = Simulation(self.random, self.tasks, self.length, journal, recorded=list(self.recorded))
        while True:
            again._settle_in_any_order()
            answer = journal.next_answer
            if answer is None:
                return again
            assert journal.is_due, "a replay waits for something that the code did not ask for"
            operation = answer.removeprefix(ABANDONED)
            if answer == operation:
                journal.give(answer)
            else:
                journal.give_up(operation)
            again.end(operation, answer)

    def _settle_in_any_order(self) -> None:
        free = [task for task in range(self.tasks) if task not in self.waiting.values()]
        for task in self.random.sample(free, len(free)):
            number = self.asked.get(task, 0)
            if number < self.length:
                self._check_turn(f"main/t~{task}/{number}")
                self.ask(task, f"main/t~{task}/{number}")

    def _check_turn(self, operation: str) -> None:
        """What was not asked for again yet holds back every answer that came after it."""
        if self.journal.has(operation) and self.journal.next_answer is not None:
            assert not self.journal.is_due

    def known(self) -> list[str]:
        """The answers that the record tells of."""
        return self.given[: max((recorded.stamp.answers for recorded in self.recorded), default=0)]


def check_same(before: Simulation, again: Simulation) -> None:
    assert again.given == before.known()
    for recorded in before.recorded:
        assert again.asked_after[recorded.operation] == before.asked_after[recorded.operation], recorded.operation


@pytest.mark.parametrize("seed", range(200))
def test_a_replay_gives_answers_in_the_order_of_before(seed: int) -> None:
    rng = random.Random(seed)
    before = Simulation(rng, tasks=rng.randint(1, 5), length=6)
    before.live(rng.randint(0, 60))
    check_same(before, before.replay())


@pytest.mark.parametrize("seed", range(100))
def test_a_replay_that_goes_on_and_is_replayed_itself_keeps_the_order_too(seed: int) -> None:
    rng = random.Random(seed)
    run = Simulation(rng, tasks=rng.randint(1, 4), length=12)
    for _ in range(5):
        run.live(rng.randint(0, 25))
        known: Sequence[str] = run.known()
        run = run.replay()
        assert run.given == known
