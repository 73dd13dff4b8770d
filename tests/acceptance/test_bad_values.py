"""What cannot be stored or does not fit is refused with a clear error at the call, and nothing is half-written."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from detent import (
    BatchTriggerError,
    NotFoundError,
    PayloadTooLargeError,
    SerializationError,
    TaskPayloadParsedError,
    UnprocessableEntityError,
)
from detent.protocol import ids
from tests.acceptance.bad import BAD_JSON
from tests.acceptance.stage import Stage
from tests.pooler import variables

pytestmark = pytest.mark.acceptance

TABLES = (
    "runs", "inputs", "ready", "history", "attempts", "idempotency_keys", "waitpoints", "waits", "journal", "batches",
    "batch_items",
)  # fmt: skip


@pytest.mark.parametrize("what", BAD_JSON)
async def test_payload_that_is_no_json_is_refused_at_the_call(quiet_stage: Stage, what: str) -> None:
    make = BAD_JSON[what]
    kind = PayloadTooLargeError if what.startswith("20 MB") else SerializationError
    client = quiet_stage.client
    for call in (
        lambda: client.tasks.trigger("anything", make(), idempotency_key="k"),
        lambda: client.tasks.batch_trigger("anything", [*range(600), make()]),
        lambda: client.batch.trigger([client.tasks.item("anything", 1), client.tasks.item("anything", make())]),
        lambda: client.tasks.trigger_and_poll("anything", make()),
        lambda: client.runs.replay(ids.new_run_id(), payload=make()),
    ):
        with pytest.raises(kind) as raised:
            await call()
        assert "payload" in str(raised.value), raised.value
    assert len(str(raised.value)) < 500
    _check_nothing_written(quiet_stage)


async def test_batch_that_meets_a_bad_item_on_the_way_says_where_and_what_it_made(quiet_stage: Stage) -> None:
    async def items() -> AsyncIterator[object]:
        for n in range(1_200):
            yield n
        yield math.nan

    with pytest.raises(BatchTriggerError) as raised:
        await quiet_stage.client.tasks.batch_trigger("anything", items())
    error = raised.value
    made = quiet_stage.one("select count(*) from detent.runs where batch_id is not null")
    assert (error.phase, error.item_count) == ("items", made)
    assert "float" in str(error)
    assert quiet_stage.one("select aborted is not null from detent.batches")


@pytest.mark.parametrize(
    ("options", "kind", "hint"),
    [
        ({"delai": "1h"}, TypeError, "delay"),
        ({"delay": datetime(2030, 1, 1)}, ValueError, "naive"),
        ({"delay": "soon"}, ValueError, "delay"),
        ({"delay": math.nan}, ValueError, "delay"),
        ({"tags": ["a"] * 9 + ["\ud800"]}, ValueError, "surrogate"),
        ({"tags": [str(n) for n in range(11)]}, ValueError, "10"),
        ({"tags": ["x" * 129]}, ValueError, "128"),
        ({"max_attempts": 0}, ValueError, "max_attempts"),
        ({"max_duration": "-1s"}, ValueError, "max_duration"),
        ({"metadata": {"x": math.nan}}, ValueError, "metadata"),
        ({"metadata": {"x": "a\0b"}}, ValueError, "NUL"),
        ({"metadata": [1]}, ValueError, "metadata"),
        ({"idempotency_key": ""}, ValueError, "idempotency key"),
        ({"idempotency_key": "k", "idempotency_key_ttl": "for ever"}, ValueError, "idempotency_key_ttl"),
    ],
    ids=str,
)
async def test_bad_option_is_refused_at_the_call(
    quiet_stage: Stage, options: dict[str, object], kind: type[Exception], hint: str
) -> None:
    tasks = quiet_stage.client.tasks
    for call in (
        lambda: tasks.trigger("anything", 1, **options),  # type: ignore[arg-type]
        lambda: tasks.batch_trigger("anything", [1, 2], **options),  # type: ignore[arg-type]
        lambda: quiet_stage.client.batch.trigger([tasks.item("anything", 1, **options)]),  # type: ignore[arg-type]
    ):
        with pytest.raises(kind) as raised:
            await call()
        assert hint in str(raised.value)
    _check_nothing_written(quiet_stage)


async def test_payload_of_the_wrong_type_is_refused_at_the_call(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.acceptance.project import values

    for name, value in variables(stage.dsn).items():
        monkeypatch.setenv(name, value)
    await stage.start_worker("values.py", runners=1)
    for payload in (None, 7, [], {}, {"id": "o1"}, {"id": "o1", "amount": "many"}, {"id": 1, "amount": 1}):
        with pytest.raises(TaskPayloadParsedError, match='"charge"'):
            await values.charge.trigger(payload)  # type: ignore[arg-type]
        with pytest.raises(UnprocessableEntityError, match="charge"):
            await stage.client.tasks.trigger("charge", payload)
        with pytest.raises(TaskPayloadParsedError, match='"charge"'):
            await values.charge.batch_trigger([{"id": "o1", "amount": 1}, payload])  # type: ignore[list-item]
        # By id, it stands as a failed run at its place, and the others go on.
        made = await stage.client.tasks.batch_trigger("charge", [{"id": "o1", "amount": 1}, payload])
        refused = await stage.client.runs.retrieve(made.runs[1].id)
        assert (refused.status, refused.error and refused.error.code) == ("SYSTEM_FAILURE", "BATCH_ITEM_COULD_NOT_TRIGGER")
    assert stage.one("select count(*) from detent.inputs where payload <> %s", ('{"id":"o1","amount":1}',)) == 0


async def test_unknown_run_is_told_from_a_bad_id(quiet_stage: Stage) -> None:
    runs = quiet_stage.client.runs
    for call in (runs.retrieve, runs.cancel, runs.replay, runs.poll):
        unknown = ids.new_run_id()
        with pytest.raises(NotFoundError, match=unknown):
            await call(unknown)
        for bad in ("", "run_", "run_1", unknown.upper(), unknown + "0", unknown.replace("run_", "batch_"), "\0"):
            with pytest.raises(ValueError, match="run"):
                await call(bad)
    _check_nothing_written(quiet_stage)


async def test_naive_dates_are_refused_when_reading_too(quiet_stage: Stage) -> None:
    for name in ("created_after", "created_before"):
        with pytest.raises(ValueError, match="naive"):
            await quiet_stage.client.runs.list(**{name: datetime(2030, 1, 1)})


async def test_output_that_cannot_be_stored_fails_the_run_and_says_why(stage: Stage) -> None:
    await stage.start_worker("values.py")
    handles = {what: await stage.client.tasks.trigger("giving", what) for what in BAD_JSON}
    handles["the wrong type"] = await stage.client.tasks.trigger("giving_the_wrong_type", 1)
    await stage.all_over(len(handles))
    for what, handle in handles.items():
        run = await stage.client.runs.retrieve(handle.id)
        assert (run.status, run.attempt, run.output) == ("FAILED", 1, None), what
        assert run.error is not None
        assert run.error.code == "TASK_OUTPUT_ERROR"
        assert f'the output of task "{handle.task_id}"' in run.error.message, what
    await stage.check_nothing_left()


async def test_bad_call_inside_a_run_is_refused_and_the_run_goes_on(stage: Stage) -> None:
    await stage.start_worker("values.py")
    for what in BAD_JSON:
        run = await stage.client.tasks.trigger_and_poll("asking_badly", what, timeout="20s")
        kind = "PayloadTooLargeError" if what.startswith("20 MB") else "SerializationError"
        assert (run.error, run.output) == (None, [kind, kind, "ValueError", "ValueError"]), what
    assert stage.one("select count(*) from detent.history where task_id = 'anything'") == len(BAD_JSON)
    await stage.check_nothing_left()


def _check_nothing_written(stage: Stage) -> None:
    written = {table: stage.one(f"select count(*) from detent.{table}") for table in TABLES}
    assert not any(written.values()), written
