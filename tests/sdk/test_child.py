"""Children of a run: what the parent asks for, what it waits with, and what it gets."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeAlias

import pytest
from pydantic import BaseModel

from detent import Err, Item, Ok, OutsideRunError, SubtaskUnwrapError, TaskPayloadParsedError, batch, task, tasks
from detent.protocol.runs import RunOutcome
from detent.protocol.triggering import TriggerRequest
from detent.sdk.task import BareTask, Task
from tests.sdk.fake_run import FakeRun, completed, failed


class Order(BaseModel):
    id: str
    amount: int


class Receipt(BaseModel):
    order_id: str


Charge: TypeAlias = Task[Order, Receipt, ..., Any]
Tick: TypeAlias = BareTask[int, ..., Any]


@pytest.fixture
def charge() -> Charge:
    @task
    async def charge(order: Order) -> Receipt:
        raise AssertionError("not called here")

    return charge


@pytest.fixture
def tick() -> Tick:
    @task
    async def tick() -> int:
        raise AssertionError("not called here")

    return tick


ORDER = Order(id="o1", amount=5)


def receipt(request: TriggerRequest) -> RunOutcome:
    return completed(request, '{"order_id":"o1"}')


async def test_parent_gets_the_output_as_the_declared_type(run: FakeRun, charge: Charge) -> None:
    run.answer = receipt

    result = await charge.trigger_and_wait(ORDER, tags="a")

    assert result == Ok(Receipt(order_id="o1"), id=run.triggered[0].run_id, task_id="charge")
    assert (run.triggered[0].payload, run.triggered[0].tags) == ('{"id":"o1","amount":5}', ("a",))
    assert run.triggered[0].is_validated
    assert await charge.trigger_and_wait(ORDER).unwrap() == Receipt(order_id="o1")
    assert await charge.call(ORDER) == Receipt(order_id="o1")


async def test_failed_child_is_a_value_until_it_is_unwrapped(run: FakeRun, charge: Charge) -> None:
    run.answer = failed

    result = await charge.trigger_and_wait(ORDER)

    assert isinstance(result, Err)
    assert result.error.message == "boom"
    with pytest.raises(SubtaskUnwrapError, match="boom"):
        await charge.call(ORDER)


async def test_wait_for_a_child_is_a_coroutine_to_asyncio(run: FakeRun, charge: Charge) -> None:
    run.answer = receipt

    both = await asyncio.gather(charge.trigger_and_wait(ORDER), charge.call(ORDER))
    timely = await asyncio.wait_for(charge.trigger_and_wait(ORDER), 5)
    async with asyncio.TaskGroup() as group:
        grouped = group.create_task(charge.trigger_and_wait(ORDER))
    shielded = await asyncio.shield(charge.trigger_and_wait(ORDER))

    assert both[1] == Receipt(order_id="o1")
    assert both[0].ok
    assert all(result.ok for result in (timely, grouped.result(), shielded))
    call = charge.trigger_and_wait(ORDER)
    assert asyncio.iscoroutine(call)
    call.close()


async def test_cancelling_the_waiter_reaches_the_wait(run: FakeRun, charge: Charge) -> None:
    run.is_stuck = True

    waiter = asyncio.ensure_future(charge.trigger_and_wait(ORDER))
    await run.is_waiting.wait()
    waiter.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiter


def forget(call: object) -> None:
    del call
    gc.collect()


async def test_wait_that_is_never_awaited_warns(run: FakeRun, charge: Charge) -> None:
    with pytest.warns(RuntimeWarning, match=r"coroutine 'charge\.trigger_and_wait' was never awaited"):
        forget(charge.trigger_and_wait(ORDER))


async def test_asking_the_unawaited_call_for_its_output_is_explained(run: FakeRun, charge: Charge) -> None:
    call = charge.trigger_and_wait(ORDER)

    with pytest.raises(AttributeError, match="'output' is not there before the call is awaited"):
        _ = call.output
    call.close()


async def test_children_outside_a_run_are_refused_at_the_call(charge: Charge) -> None:
    with pytest.raises(OutsideRunError, match=r"charge\.trigger_and_wait needs a run"):
        charge.trigger_and_wait(ORDER)
    with pytest.raises(OutsideRunError):
        charge.call(ORDER)
    with pytest.raises(OutsideRunError, match=r"charge\.batch_trigger_and_wait needs a run"):
        charge.batch_trigger_and_wait([ORDER])
    with pytest.raises(OutsideRunError):
        tasks.trigger_and_wait("charge", {})
    with pytest.raises(OutsideRunError, match=r"batch\.trigger_and_wait needs a run"):
        batch.trigger_and_wait([charge.item(ORDER)])


async def test_trigger_inside_a_run_goes_through_the_run(run: FakeRun, charge: Charge) -> None:
    handle = await charge.trigger(ORDER, idempotency_key="k")

    assert handle.id == run.triggered[0].run_id
    assert run.triggered[0].idempotency is not None
    assert run.triggered[0].idempotency.scope == "run"


async def test_task_without_payload_takes_options_only(run: FakeRun, tick: Tick) -> None:
    run.answer = lambda request: completed(request, "7")

    assert await tick.call(delay="1s") == 7
    assert run.triggered[0].payload is None
    done = await tick.batch_trigger_and_wait([tick.item(), tick.item(tags="a")])
    assert [result.unwrap() for result in done.runs] == [7, 7]
    assert (await tick.trigger()).task_id == "tick"
    with pytest.raises(TypeError):
        tick.trigger(5)


async def test_by_id_payload_and_output_are_plain_json(run: FakeRun) -> None:
    run.answer = lambda request: completed(request, '{"n":1}')

    assert await tasks.call("charge", ORDER) == {"n": 1}
    assert run.triggered[0].payload == '{"id":"o1","amount":5}'
    assert not run.triggered[0].is_validated
    assert (await tasks.trigger_and_wait("charge")).ok
    assert run.triggered[1].payload is None


async def test_ref_by_id_is_typed_by_classes(run: FakeRun) -> None:
    run.answer = receipt
    charge = tasks.ref("charge", payload=Order, output=Receipt)

    assert await charge.call(ORDER) == Receipt(order_id="o1")
    with pytest.raises(TaskPayloadParsedError, match="amount: Field required"):
        charge.call({"id": "o1"})  # type: ignore[arg-type]


# ---- batches ----


async def test_batch_gives_results_in_the_order_of_its_items(run: FakeRun, charge: Charge) -> None:
    def answer(request: TriggerRequest) -> RunOutcome:
        return failed(request) if "o2" in (request.payload or "") else receipt(request)

    run.answer = answer

    done = await charge.batch_trigger_and_wait(
        [ORDER, charge.item(Order(id="o2", amount=1), delay="5m"), ORDER], tags="a"
    )

    assert [result.ok for result in done.runs] == [True, False, True]
    assert [request.tags for request in run.triggered] == [("a",)] * 3
    assert run.triggered[1].delay is not None


async def test_list_is_checked_whole_before_anything_is_sent(run: FakeRun, charge: Charge) -> None:
    with pytest.raises(TaskPayloadParsedError):
        charge.batch_trigger([ORDER, {"id": "o2"}])
    with pytest.raises(TaskPayloadParsedError):
        charge.batch_trigger_and_wait((ORDER, {"id": "o2"}))
    assert run.triggered == []


async def test_iterables_and_async_iterables_are_streamed(run: FakeRun, charge: Charge) -> None:
    taken: list[int] = []

    def some() -> Iterator[Order]:
        for number in range(3):
            taken.append(number)
            yield Order(id=str(number), amount=1)

    async def others() -> AsyncIterator[Order]:
        for order in some():
            yield order

    call = charge.batch_trigger(some())
    assert taken == []
    assert len((await call).runs) == 3
    assert len((await charge.batch_trigger(others())).runs) == 3
    assert taken == [0, 1, 2, 0, 1, 2]


async def test_empty_batch_is_an_empty_result(run: FakeRun, charge: Charge) -> None:
    assert (await charge.batch_trigger([])).runs == ()
    assert (await charge.batch_trigger_and_wait([])).runs == ()


@pytest.mark.parametrize("items", ["abc", b"abc", {"id": "o1"}, 5, ORDER.model_dump()])
async def test_what_is_no_list_of_items_is_refused(run: FakeRun, charge: Charge, items: object) -> None:
    with pytest.raises(TypeError, match="a batch is made of an iterable of items"):
        charge.batch_trigger(items)


async def test_batch_of_several_tasks_decodes_each_by_its_own(run: FakeRun, charge: Charge, tick: Tick) -> None:
    outputs = {"charge": '{"order_id":"o1"}', "tick": "7", "other": '{"order_id":"o1"}'}
    run.answer = lambda request: completed(request, outputs[request.task_id])
    items: list[Item[object, object]] = [charge.item(ORDER), tick.item(), tasks.item("other", {"a": 1}, tags="b")]

    done = await batch.trigger_and_wait(items)
    handles = await batch.trigger(items)

    assert [result.unwrap() for result in done.runs] == [Receipt(order_id="o1"), 7, {"order_id": "o1"}]
    assert [handle.task_id for handle in handles.runs] == ["charge", "tick", "other"]


async def test_item_of_another_task_is_refused(run: FakeRun, charge: Charge, tick: Tick) -> None:
    with pytest.raises(
        TypeError, match=r'item 1 is of task "tick", not of "charge"; use batch\.trigger for several tasks'
    ):
        charge.batch_trigger([ORDER, tick.item()])
    with pytest.raises(TypeError, match=r"item 0 is .*; make it with tasks.item"):
        batch.trigger([ORDER])  # type: ignore[list-item]


async def test_key_of_a_batch_gives_each_item_its_own(run: FakeRun, charge: Charge) -> None:
    await charge.batch_trigger([ORDER, charge.item(ORDER, idempotency_key="mine"), ORDER], idempotency_key="batch")

    keys = [request.idempotency.key for request in run.triggered if request.idempotency]
    assert len(set(keys)) == 3
    assert run.triggered[1].idempotency is not None
    assert run.triggered[1].idempotency.user_key == "mine"
