"""What both type checkers must refuse: an ignore that hides nothing is an error. Checked, never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel

from detent import (
    INHERIT,
    Concurrency,
    Context,
    Debounce,
    Local,
    RateLimit,
    Result,
    TaskRef,
    Token,
    batch,
    concurrency_limit,
    concurrency_limits,
    define_config,
    idempotency_keys,
    metadata,
    queue,
    queues,
    runs,
    schedules,
    schema_task,
    step,
    tags,
    task,
    tasks,
    wait,
)


class Order(BaseModel):
    id: str
    amount: int


class Receipt(BaseModel):
    order_id: str


@task
async def charge(order: Order, ctx: Context) -> Receipt:
    return Receipt(order_id=order.id)


@task
async def tick() -> None: ...


ORDER = Order(id="o1", amount=5)
NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)


async def wrong_payload() -> None:
    await charge.trigger({"id": "o1"})  # type: ignore[arg-type]
    await charge.trigger()  # type: ignore[call-arg]
    await charge.trigger_and_wait(5)  # type: ignore[arg-type]
    await charge.call("o1")  # type: ignore[arg-type]
    await tick.trigger(payload=5)  # type: ignore[call-arg]
    charge.item(5)  # type: ignore[arg-type]
    await charge.batch_trigger([5])  # type: ignore[list-item]
    await charge.batch_trigger([ORDER, tick.item()])  # type: ignore[list-item]
    await tasks.ref("charge", payload=Order).trigger({})  # type: ignore[arg-type]


async def wrong_replay() -> None:
    await runs.replay("run_1", machin="micro")  # type: ignore[call-overload]


async def wrong_amendments() -> None:
    await runs.add_tags("run_1", 5)  # type: ignore[arg-type]
    await runs.update_metadata("run_1", [1])  # type: ignore[arg-type]
    for _ in runs.logs("run_1"):  # type: ignore[attr-defined]
        pass


async def wrong_filter() -> None:
    await runs.list(tag="user:7")  # type: ignore[call-arg]
    await runs.list(is_test="yes")  # type: ignore[arg-type]
    await runs.bulk.cancel(filter={"state": "FAILED"})  # type: ignore[arg-type]
    await runs.bulk.cancel(filter={"created_after": "yesterday"})  # type: ignore[arg-type]


async def wrong_options() -> None:
    await charge.trigger(ORDER, dely="1h")  # type: ignore[call-arg]
    await charge.trigger(ORDER, max_attempts="many")  # type: ignore[arg-type]
    await charge.trigger(ORDER, metadata=[1])  # type: ignore[arg-type]
    await charge.trigger_and_wait(ORDER, version="v2")  # type: ignore[call-arg]
    await charge.call(ORDER, version="v2")  # type: ignore[call-arg]
    await charge.batch_trigger_and_wait([ORDER], version="v2")  # type: ignore[call-arg]
    await charge.trigger(ORDER, ttl=INHERIT)  # type: ignore[arg-type]
    await charge.trigger(ORDER, queue=5)  # type: ignore[arg-type]
    await charge.trigger(ORDER, concurrency=Concurrency(total=5))  # type: ignore[arg-type]
    await charge.trigger(ORDER, concurrency=5)  # type: ignore[arg-type]
    await charge.trigger(ORDER, debounce="doc-7")  # type: ignore[arg-type]
    Debounce("doc-7", "5s", mode="both")  # type: ignore[arg-type]
    Debounce("doc-7")  # type: ignore[call-arg]
    Debounce("doc-7", NOON)  # type: ignore[arg-type]
    await tasks.trigger("charge", {}, dely="1h")  # type: ignore[call-arg]
    charge.sync.trigger(ORDER, dely="1h")  # type: ignore[call-arg]


async def wrong_calls(ctx: Context) -> None:
    await charge(ORDER)  # type: ignore[call-arg]
    await charge("o1", ctx)  # type: ignore[arg-type]
    charge.sync.trigger(5)  # type: ignore[arg-type]
    await wait.for_(second=5)  # type: ignore[call-arg]
    idempotency_keys.create("k", scope="globl")  # type: ignore[arg-type]
    await batch.trigger([ORDER])  # type: ignore[arg-type]
    await runs.retrieve(5)  # type: ignore[call-overload]


async def wrong_tokens(token: Token[Receipt]) -> None:
    await wait.complete_token(token, {"order_id": "o1"})  # type: ignore[misc]
    await wait.complete_token(token)  # type: ignore[call-overload]
    await wait.for_token(token, output=Order)  # type: ignore[call-overload]
    await wait.for_token(5)  # type: ignore[call-overload]
    await wait.create_token(timeot="1h")  # type: ignore[call-overload]
    result = await wait.for_token(token)
    result.order_id  # type: ignore[union-attr]
    wants_int(await wait.for_token(token).unwrap())  # type: ignore[arg-type]


async def wrong_flow_control() -> None:
    queue("emails", 5)  # type: ignore[call-arg]
    queue("emails", concurrency_limit="5")  # type: ignore[arg-type]
    concurrency_limit("openai", rate=5)  # type: ignore[arg-type]
    concurrency_limit("openai", totl=5)  # type: ignore[call-arg]
    Concurrency(5)  # type: ignore[call-arg]
    RateLimit(100)  # type: ignore[call-arg]
    RateLimit(100, "1m", True)  # type: ignore[call-arg]
    emails = await queues.retrieve("emails")
    emails.paused = True  # type: ignore[misc]
    await queues.pause(5)  # type: ignore[arg-type]
    await queues.pause(Concurrency(total=5))  # type: ignore[arg-type]
    await queues.override_concurrency_limit("emails", "5")  # type: ignore[arg-type]
    await concurrency_limits.pause(queue("emails"))  # type: ignore[arg-type]
    await concurrency_limits.override("openai", totl=5)  # type: ignore[call-overload]
    await concurrency_limits.override("openai", concurrency_key="k", total=5)  # type: ignore[call-overload]
    await concurrency_limits.override("openai", concurrency_key="k")  # type: ignore[call-overload]
    concurrency_limits.sync.override("openai", totl=5)  # type: ignore[call-overload]
    await runs.reschedule("run_1")  # type: ignore[call-overload]
    await runs.reschedule("run_1", [5])  # type: ignore[call-overload]


def wants_int(number: int) -> None: ...


def wants_receipt(receipt: Receipt) -> None: ...


async def wrong_outputs(ref: TaskRef[Order, Receipt]) -> None:
    result: Result[Receipt] = await charge.trigger_and_wait(ORDER)
    result.order_id  # type: ignore[union-attr]
    result["order_id"]  # type: ignore[index]
    wants_int(await charge.call(ORDER))  # type: ignore[arg-type]
    wants_receipt(charge.call(ORDER))  # type: ignore[arg-type]
    result.ok = True  # type: ignore[misc]
    if result.ok:
        result.output.charged  # type: ignore[attr-defined]


@step
async def fetch_rate(currency: str) -> float:
    return 1.5


@step
def count_words(text: str) -> int:
    return len(text)


async def wrong_steps() -> None:
    await fetch_rate(5)  # type: ignore[arg-type]
    await count_words("a b")  # type: ignore[misc]
    await step("rate", fetch_rate)  # type: ignore[call-overload]
    await step("rate", fetch_rate, 5)  # type: ignore[call-overload]
    await step("rate", fetch_rate("EUR"))  # type: ignore[call-overload]
    rate = await step("rate", fetch_rate, "EUR")
    wants_int(rate)  # type: ignore[arg-type]
    wants_int(await fetch_rate("EUR"))  # type: ignore[arg-type]
    step.sync("count", count_words, 5)  # type: ignore[call-overload]
    step(retry="often")  # type: ignore[call-overload]
    step(retries=3)  # type: ignore[call-overload]


async def passed_on(ref: TaskRef[Order, int]) -> None: ...


async def passing_on() -> None:
    await passed_on(charge)  # type: ignore[arg-type]


def wrong_definitions() -> None:
    @task(max_duraton=5)  # type: ignore[call-overload, untyped-decorator]
    async def misspelt(order: Order) -> None: ...

    @task(retry="often")  # type: ignore[call-overload, untyped-decorator]
    async def often(order: Order) -> None: ...

    @task(on_failure="alert")  # type: ignore[arg-type]
    async def unalerted(order: Order) -> None: ...

    Local[int]("n").set("5")  # type: ignore[arg-type]

    @task(on_lost="retry")  # type: ignore[call-overload, untyped-decorator]
    async def lost(order: Order) -> None: ...

    @task(queue=5)  # type: ignore[call-overload, untyped-decorator]
    async def queued(order: Order) -> None: ...

    @task(concurrency={"total": 5})  # type: ignore[call-overload, untyped-decorator]
    async def bounded(order: Order) -> None: ...

    @schema_task(schema=Order)  # type: ignore[arg-type]
    async def other(order: Receipt) -> None: ...

    @schedules.task(cron=5)  # type: ignore[arg-type]
    async def scheduled() -> None: ...

    @schedules.task(cron="0 5 * * *")  # type: ignore[arg-type]
    async def ordered(order: Order) -> None: ...

    define_config(projct="shop")  # type: ignore[call-arg]


async def wrong_schedules() -> None:
    await schedules.create(task="daily", cron="0 5 * * *", overlap="queue")  # type: ignore[arg-type]
    await schedules.update("sched_1", tz="UTC")  # type: ignore[call-arg]


async def bad_metadata() -> None:
    metadata.set(7, "at")  # type: ignore[arg-type]
    metadata.increment("n", "1")  # type: ignore[arg-type]
    metadata.replace([])  # type: ignore[arg-type]
    await tags.add(7)  # type: ignore[arg-type]
