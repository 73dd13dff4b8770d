"""What a child takes over from its parent, and in which version it runs."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest

from detent import INHERIT, Debounce, OutsideRunError, TriggerOptions, batch, task, tasks
from detent.sdk.options import to_fields
from detent.sdk.task import BareTask
from tests.sdk.fake_run import FakeRun, context

Tick: TypeAlias = BareTask[None, ..., Any]


@pytest.fixture
def tick() -> Tick:
    @task
    async def tick() -> None: ...

    return tick


async def test_child_inherits_nothing_unless_told(run: FakeRun, tick: Tick) -> None:
    run.context = context(queue="cards", concurrency_key="user 7", tags=("a", "b"))
    run.metadata = '{"source":"shop"}'

    await tick.trigger()
    await tick.trigger_and_wait(queue=INHERIT, concurrency_key=INHERIT, tags=INHERIT, metadata=INHERIT)

    bare, told = run.triggered
    assert (bare.queue, bare.concurrency_key, bare.tags, bare.metadata) == (None, None, (), None)
    assert (told.queue, told.concurrency_key, told.tags) == ("cards", "user 7", ("a", "b"))
    assert told.metadata == '{"source":"shop"}'


async def test_what_the_parent_has_not_is_not_inherited(run: FakeRun) -> None:
    assert to_fields({"concurrency_key": INHERIT, "metadata": INHERIT}) == {}


def test_outside_of_a_run_there_is_nothing_to_inherit(tick: Tick) -> None:
    with pytest.raises(OutsideRunError, match="queue=INHERIT needs a run"):
        tick.trigger(queue=INHERIT)


async def test_other_options_are_not_handed_down(run: FakeRun) -> None:
    with pytest.raises(
        TypeError, match="ttl=INHERIT: a run hands down concurrency_key, metadata, queue, tags; give a value"
    ):
        to_fields({"ttl": INHERIT})


async def test_triggers_inside_a_run_are_pinned_by_hand_alone(
    run: FakeRun, tick: Tick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETENT_VERSION", "v7")
    await tick.trigger()
    await tick.trigger(version="v2")
    assert [request.version for request in run.triggered] == [None, "v2"]


def test_triggers_outside_of_runs_are_for_the_version_of_the_environment(
    tick: Tick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETENT_VERSION", "v7")
    versions = [tick._request(None, options).version for options in ({}, {"version": "v2"}, {"version": None})]
    assert versions == ["v7", "v2", "v7"]

    monkeypatch.setenv("DETENT_VERSION", "")
    assert tick._request(None, {}).version is None


async def test_child_that_is_waited_for_is_pinned_to_no_version(
    run: FakeRun, tick: Tick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETENT_VERSION", "v7")
    await tick.trigger_and_wait()
    assert run.triggered[0].version is None


async def test_child_that_is_waited_for_takes_no_version(run: FakeRun, tick: Tick) -> None:
    pinned: Any = {"version": "v2"}
    item = tick.item(version="v2")
    for call in (
        lambda: tick.trigger_and_wait(**pinned),
        lambda: tick.call(**pinned),
        lambda: tick.batch_trigger_and_wait([tick.item()], **pinned),
        lambda: tick.batch_trigger_and_wait([item]),
        lambda: tasks.trigger_and_wait("tick", **pinned),
        lambda: batch.trigger_and_wait([item]),
    ):
        with pytest.raises(TypeError, match="version= is not for a child that its run waits for"):
            call()
    await tick.batch_trigger([item])
    assert [request.version for request in run.triggered] == ["v2"]


async def test_every_way_to_trigger_takes_the_options_of_flow_control(run: FakeRun, tick: Tick) -> None:
    options: TriggerOptions = {"ttl": "1m", "debounce": Debounce("k", "5s"), "concurrency": "openai"}
    await tick.trigger(**options)
    await tasks.trigger("tick", **options)
    one, two = run.triggered
    assert (
        (one.ttl, one.limits, one.debounce) == (two.ttl, two.limits, two.debounce) == (60.0, ("openai",), one.debounce)
    )
    await batch.trigger([tick.item(**options)])
    assert run.triggered[0].debounce == one.debounce
