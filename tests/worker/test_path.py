from __future__ import annotations

from detent.worker.path import Path, parent_of


def test_operations_of_a_path_are_numbered_in_the_order_they_are_asked_for() -> None:
    path = Path()
    assert [path.operation() for _ in range(3)] == ["main/0", "main/1", "main/2"]


def test_looking_at_the_next_operation_does_not_count_it() -> None:
    path = Path()
    assert path.peek("u") == "main/0u"
    assert path.operation() == "main/0"


def test_steps_are_numbered_by_name_and_shift_no_operation() -> None:
    path = Path()
    steps = [path.step(name) for name in ("fetch", "store", "fetch")]
    assert steps == ["main/fetch#0", "main/store#0", "main/fetch#1"]
    assert path.operation() == "main/0"


def test_tasks_that_a_library_starts_do_not_shift_those_of_the_run() -> None:
    alone, beside = Path(), Path()
    beside.child("library.keep_alive")
    assert alone.child("work").text == beside.child("work").text == "main/work~0/"
    assert beside.child("work").text == "main/work~1/"


def test_each_task_counts_its_own_operations() -> None:
    parent = Path()
    first, second = parent.child("work"), parent.child("work")
    assert [first.operation(), second.operation(), parent.operation()] == ["main/work~0/0", "main/work~1/0", "main/0"]


def test_a_name_cannot_pretend_to_be_a_path() -> None:
    assert Path().child("a/b").text == "main/a.b~0/"


def test_the_parent_of_an_operation_is_the_path_that_asked_for_it() -> None:
    path = Path().child("work")
    assert parent_of(path.operation()) == path.text
    assert parent_of(path.step("fetch")) == path.text
