"""`queue()` declares a queue once, under a good name; tasks are put into it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from detent import DefinitionError, DuplicateLimitError, Queue, Retry, queue, task
from detent.protocol.flow import LimitDeclaration, LimitKind
from detent.sdk.declarations import declarations


def declared(name: str, per_key: int | None = None) -> LimitDeclaration:
    return LimitDeclaration(kind=LimitKind.QUEUE, name=name, per_key=per_key)


def test_declared_queue_is_kept_for_the_worker_though_no_task_uses_it() -> None:
    assert queue("emails", concurrency_limit=5) == Queue(name="emails", concurrency_limit=5)
    queue("a/b_c-1")
    assert declarations.all() == [declared("a/b_c-1"), declared("emails", 5)]


def test_task_goes_to_a_queue_by_object_or_name_and_else_to_its_own() -> None:
    @task(queue=queue("emails"))
    async def welcome() -> None: ...

    @task(queue="emails")
    async def digest() -> None: ...

    @task(id="clean up")
    async def clean() -> None: ...

    names = [made.registration(Retry()).queue for made in (welcome, digest, clean)]
    assert names == ["emails", "emails", "task/clean up"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "'' is no name of a queue: 1 to 128 letters, digits, _, - and / make one"),
        ("q" * 129, "is no name of a queue"),
        ("my queue", "is no name of a queue"),
        ("größe", "is no name of a queue"),
        ("emails\n", "is no name of a queue"),
        ("limit/openai", 'names that begin with "limit/" are kept for concurrency limits; take another'),
        ("task/charge", 'names that begin with "task/" are those of the tasks\' own queues; take another'),
        (5, "5 is no queue: give a queue() or its name"),
    ],
)
def test_bad_name_is_refused_with_the_place(name: str, why: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        queue(name)

    assert why in str(refused.value)
    assert "test_queue.py:" in str(refused.value)


def test_depth_of_a_queue_may_be_bounded() -> None:
    assert queue("emails", most_queued=1000) == Queue(name="emails", most_queued=1000)
    assert declarations.all() == [LimitDeclaration(kind=LimitKind.QUEUE, name="emails", most_queued=1000)]
    with pytest.raises(DefinitionError, match=r"most_queued=-1 must be a whole number"):
        queue("others", most_queued=-1)


@pytest.mark.parametrize("limit", [-1, 1.5, True, "5", 2**31])
def test_limit_that_is_no_number_of_runs_is_refused(limit: int) -> None:
    with pytest.raises(DefinitionError, match=r"concurrency_limit=.* must be a whole number of 0 to 2,147,483,647"):
        queue("emails", concurrency_limit=limit)


def test_queue_that_starts_nothing_may_be_declared() -> None:
    assert queue("closed", concurrency_limit=0).concurrency_limit == 0


def test_two_declarations_that_differ_are_refused_naming_both_places() -> None:
    queue("emails", concurrency_limit=5)
    with pytest.raises(DuplicateLimitError) as refused:
        queue("emails", concurrency_limit=7)

    assert (refused.value.kind, refused.value.name) == ("queue", "emails")
    assert refused.value.first != refused.value.second
    assert str(refused.value).startswith(
        f'queue "emails" in {refused.value.second} is already declared in {refused.value.first} '
    )


def test_same_declaration_may_stand_in_two_places() -> None:
    assert queue("emails", concurrency_limit=5) == queue("emails", concurrency_limit=5)


def test_module_that_is_loaded_again_replaces_its_own_queues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file = tmp_path / "queues_of_shop.py"
    file.write_text('from detent import queue\nqueue("emails", concurrency_limit=5)\n')
    module = importlib.import_module("queues_of_shop")
    file.write_text('from detent import queue\n\nqueue("emails", concurrency_limit=70)\n')
    importlib.reload(module)
    del sys.modules["queues_of_shop"]

    assert declarations.all() == [declared("emails", 70)]
