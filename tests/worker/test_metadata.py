"""Metadata and tags of a run, said by its own code on a real database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from detent import Context, MetadataTooLargeError, Retry, TooManyTagsError, metadata, step, tags, task, tasks, wait
from detent.protocol.codec import JsonValue
from detent.protocol.ids import RunId
from detent.worker import metadata as run_metadata
from tests.worker.conftest import StartRig
from tests.worker.rig import PATIENCE, Rig


@pytest.fixture
async def gate() -> AsyncIterator[asyncio.Event]:
    """Keeps a run from going on until the test says so."""
    gate = asyncio.Event()
    yield gate
    gate.set()


async def metadata_of(rig: Rig, run_id: RunId) -> JsonValue:
    document: JsonValue = json.loads((await rig.record(run_id)).metadata or "{}")
    return document


async def test_an_executing_run_is_read_with_its_updates(start_rig: StartRig, gate: asyncio.Event) -> None:
    @task
    async def charge() -> None:
        for number in range(3):
            metadata.set("number", number)
            await asyncio.sleep(0)
        await gate.wait()

    async with start_rig() as rig:
        run_id = await rig.trigger("charge")
        async with asyncio.timeout(PATIENCE):
            while await metadata_of(rig, run_id) != {"number": 2}:
                pass
        gate.set()
        await rig.end_of(run_id)


def test_readers_are_promised_updates_within_300_ms() -> None:
    assert run_metadata.FLUSH_EVERY + run_metadata.GATHER < 0.25


async def test_what_an_attempt_says_last_is_there_when_it_is_over(start_rig: StartRig) -> None:
    @task(retry=Retry(max_attempts=2, min_timeout="1ms", max_timeout="1ms"))
    async def charge(ctx: Context) -> object:
        metadata.increment("tries").append("log", ctx.attempt.number)
        if ctx.attempt.number == 1:
            raise ValueError("not yet")
        return metadata.current()

    async with start_rig() as rig:
        run_id = await rig.trigger("charge", metadata='{"source":"shop"}')
        outcome = await rig.end_of(run_id)
        assert await metadata_of(rig, run_id) == {"source": "shop", "tries": 2, "log": [1, 2]}
    assert json.loads(outcome.output or "") == {"source": "shop", "tries": 2, "log": [1, 2]}


async def test_what_a_replay_says_again_counts_once(start_rig: StartRig, gate: asyncio.Event) -> None:
    starts, stopped = 0, asyncio.Event()

    @task(retry=1)
    async def counting() -> object:
        nonlocal starts
        starts += 1
        own = starts
        metadata.increment("before")
        await step("work", work)
        metadata.increment("between")
        await metadata.flush()
        metadata.increment("after")
        if own == 1:
            await metadata.flush()
            stopped.set()
            await gate.wait()
        return metadata.get("after")

    async def work() -> None:
        metadata.increment("inside")

    async with start_rig() as rig:
        run_id = await rig.trigger("counting")
        async with asyncio.timeout(PATIENCE):
            await stopped.wait()
    async with start_rig() as rig:
        outcome = await rig.end_of(run_id)
        assert await metadata_of(rig, run_id) == {"before": 1, "inside": 1, "between": 1, "after": 1}
    assert (starts, outcome.output) == (2, "1")


@pytest.mark.parametrize("in_batch", [True, False])
async def test_a_child_counts_on_from_what_its_parent_has_set_before(start_rig: StartRig, in_batch: bool) -> None:
    @task(id="counting")
    async def counting() -> None:
        metadata.parent.increment("count")

    @task(id="counted")
    async def counted() -> None:
        metadata.set("count", 5)
        await metadata.flush()
        metadata.set("count", 10)
        await (counting.batch_trigger_and_wait([None]) if in_batch else counting.trigger_and_wait())

    async with start_rig() as rig:
        run_id = await rig.trigger("counted")
        await rig.end_of(run_id)
        assert await metadata_of(rig, run_id) == {"count": 11}


async def test_children_report_to_their_parent_and_root(start_rig: StartRig) -> None:
    @task
    async def leaf() -> None:
        metadata.parent.increment("leaves")
        metadata.root.increment("all").append("log", "leaf")

    @task
    async def middle() -> object:
        await asyncio.gather(tasks.call("leaf"), tasks.call("leaf"))
        await metadata.refresh()
        return metadata.get("leaves")

    @task
    async def top() -> object:
        metadata.parent.set("own", 1)
        return await tasks.call("middle")

    async with start_rig() as rig:
        run_id = await rig.trigger("top")
        outcome = await rig.end_of(run_id)
        assert await metadata_of(rig, run_id) == {"own": 1, "all": 2, "log": ["leaf", "leaf"]}
    assert outcome.output == "2"


async def test_the_copy_in_memory_goes_on_over_a_wait(start_rig: StartRig) -> None:
    @task
    async def nothing() -> None: ...

    @task
    async def waits() -> object:
        metadata.increment("n")
        await tasks.call("nothing")
        metadata.increment("n")
        return metadata.get("n")

    async with start_rig() as rig:
        run_id = await rig.trigger("waits")
        assert (await rig.end_of(run_id)).output == "2"
        assert await metadata_of(rig, run_id) == {"n": 2}


async def test_a_plain_function_updates_from_its_thread(start_rig: StartRig) -> None:
    @task
    def plain() -> object:
        metadata.set("$.a.b", [1])
        metadata.sync.flush()
        metadata.sync.refresh()
        tags.sync.add("user:7")
        return metadata.get("$.a.b.0")

    async with start_rig() as rig:
        run_id = await rig.trigger("plain")
        assert (await rig.end_of(run_id)).output == "1"
        assert (await rig.record(run_id)).tags == ("user:7",)


async def test_over_large_metadata_is_refused_at_the_call(start_rig: StartRig) -> None:
    @task
    async def large() -> object:
        metadata.set("a", "x" * 200_000)
        with pytest.raises(MetadataTooLargeError):
            metadata.set("b", "x" * 100_000)
        metadata.delete("a").set("b", "x" * 100_000)
        return list(metadata.current() or {})

    async with start_rig() as rig:
        outcome = await rig.run("large")
    assert outcome.output == '["b"]', outcome.error


async def test_tags_are_added_while_the_context_stays(start_rig: StartRig) -> None:
    @task
    async def tagging(ctx: Context) -> list[str]:
        await tags.add(["user:7", " ", "a"])
        await tags.add("a")
        with pytest.raises(TooManyTagsError, match="11 tags"):
            await tags.add([f"n{number}" for number in range(9)])
        await wait.for_(seconds=0)
        return ctx.run.tags

    async with start_rig() as rig:
        run_id = await rig.trigger("tagging", tags=("a",))
        assert (await rig.end_of(run_id)).output == '["a"]'
        assert (await rig.record(run_id)).tags == ("a", "user:7")
