"""Payloads triggered by id, against the JSON Schema that the task registered."""

from __future__ import annotations

import json
from dataclasses import replace

from detent.engine.backend import connect
from detent.protocol import ids
from detent.protocol.batches import ChunkTaken
from detent.protocol.refusal import Refused
from detent.protocol.status import RunStatus
from detent.protocol.triggering import Triggered
from tests.engine.stage import Stage, child, chunk, journal_of, registration, request, task

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"amount": {"type": "integer", "minimum": 1}, "to": {"type": "string"}},
        "required": ["to"],
    }
)
GOOD, BAD = '{"to": "a", "amount": 1}', '{"amount": 0}'


def checked(task_id: str = "pay", **options: str) -> object:
    return task(task_id, payload_schema=SCHEMA, **options)


async def test_a_payload_that_does_not_fit_is_refused_with_the_fields_that_are_wrong(stage: Stage) -> None:
    await stage.worker(checked())
    refused, made = await stage.engine.trigger([request("pay", payload=BAD), request("pay", payload=GOOD)])
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (422, "invalid_payload")
    assert '"pay"' in refused.message
    assert len(refused.details) == 2
    assert any(detail.startswith("amount: ") for detail in refused.details)
    assert isinstance(made, Triggered)
    assert await stage.count("runs") == 1


async def test_a_missing_payload_is_checked_as_null(stage: Stage) -> None:
    await stage.worker(checked())
    (refused,) = await stage.engine.trigger([request("pay", payload=None)])
    assert isinstance(refused, Refused)


async def test_a_missing_payload_passes_where_the_schema_has_a_default(stage: Stage) -> None:
    await stage.worker(task("pay", payload_schema=json.dumps({**json.loads(SCHEMA), "default": json.loads(GOOD)})))
    missing, bad = await stage.engine.trigger([request("pay", payload=None), request("pay", payload=BAD)])
    assert isinstance(missing, Triggered)
    assert isinstance(bad, Refused)


async def test_a_payload_its_caller_validated_is_not_checked_again(stage: Stage) -> None:
    await stage.worker(checked())
    (made,) = await stage.engine.trigger([request("pay", payload=BAD, is_validated=True)])
    assert isinstance(made, Triggered)


async def test_a_task_nobody_registered_takes_any_payload(stage: Stage) -> None:
    (made,) = await stage.engine.trigger([request("unknown", payload=BAD)])
    assert isinstance(made, Triggered)


async def test_the_newest_version_of_the_schema_counts(stage: Stage, dsn: str) -> None:
    await stage.worker(checked())
    await stage.worker(task("pay"))
    engine = connect(dsn)
    (made,) = await engine.trigger([request("pay", payload=BAD)])
    assert isinstance(made, Triggered)
    await engine.close()


async def test_a_version_registered_again_counts_as_the_newest(stage: Stage, dsn: str) -> None:
    """Code that is put back: its tasks are an old version, and the current one."""
    old = registration(checked(description="first"))
    await stage.engine.register_worker(old)
    replaced = await stage.worker(task("pay", description="second"))
    assert (await stage.engine.list_tasks())[0].description == "second"
    await stage.session(await stage.engine.register_worker(old))
    await replaced.end()
    engine = connect(dsn)
    (refused,) = await engine.trigger([request("pay", payload=BAD)])
    assert isinstance(refused, Refused)
    (listed,) = await engine.list_tasks()
    assert listed.description == "first"
    await engine.close()


async def test_a_child_with_a_bad_payload_is_refused_and_leaves_its_parent_running(stage: Stage) -> None:
    worker = await stage.worker("work", checked())
    parent = await stage.leased(worker)
    refused, made = await stage.engine.trigger_children(
        [child(parent, "0", "pay", payload=BAD), child(parent, "1", "pay", payload=GOOD, wait=False)]
    )
    assert isinstance(refused, Refused)
    assert not isinstance(made, Refused)
    assert [entry.operation for entry in await journal_of(stage.engine, child(parent, "0").origin.holder)] == ["1"]
    assert (await worker.succeed(parent))[0].status.is_success


async def test_an_item_with_a_bad_payload_fails_alone(stage: Stage) -> None:
    await stage.worker(checked())
    batch_id = ids.new_batch_id()
    good = chunk(batch_id, [0, 1], task_id="pay", payload=GOOD)
    bad = chunk(batch_id, [2], task_id="pay", payload=BAD)
    taken = await stage.engine.trigger_batch(replace(good, items=(*good.items, *bad.items), total=3))
    assert isinstance(taken, ChunkTaken)
    failed = await stage.run(taken.items[2].run_id)
    assert (failed.status, failed.batch_id, failed.payload) == (RunStatus.SYSTEM_FAILURE, batch_id, BAD)
    assert failed.error is not None
    assert failed.error.code == "BATCH_ITEM_COULD_NOT_TRIGGER"
    assert 'does not fit the schema of task "pay"' in failed.error.message
    assert await stage.count("runs") == 2
