"""What both type checkers must accept, and the types they must see. Checked, never run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from pydantic import BaseModel, TypeAdapter

from detent import (
    INHERIT,
    AbortTaskRunError,
    AtReset,
    BatchHandle,
    BatchRecord,
    BatchResult,
    BulkRecord,
    CancelSignal,
    ChildOptions,
    Client,
    Concurrency,
    Context,
    Cron,
    Debounce,
    EnvironmentType,
    EnvVar,
    Err,
    FetchRetry,
    IdempotencyKey,
    JsonValue,
    Local,
    Next,
    Ok,
    Page,
    RateLimit,
    ResetFormat,
    Result,
    Retention,
    Retries,
    RetrievedLimit,
    RetrievedQueue,
    RetrievedToken,
    Retry,
    RetryAt,
    RetryWith,
    Run,
    RunError,
    RunHandle,
    RunLog,
    RunPage,
    ScheduledPayload,
    ScheduleRecord,
    SkipRetrying,
    TaskRef,
    Token,
    TokenStatus,
    TriggerOptions,
    batch,
    concurrency_limit,
    concurrency_limits,
    define_config,
    envvars,
    idempotency_keys,
    logger,
    metadata,
    queue,
    queues,
    retry,
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
    charged: int


@dataclass
class Point:
    x: int


@task(id="charge", retry=Retry(max_attempts=5, factor=1.8, min_timeout="500ms", max_timeout="30s"), max_duration=60)
async def charge(order: Order, ctx: Context) -> Receipt:
    if order.amount <= 0:
        raise AbortTaskRunError("invalid amount")
    return Receipt(order_id=order.id, charged=order.amount)


@task
def shrink(folder: str, signal: CancelSignal) -> int:
    signal.raise_if_cancelled()
    return len(folder)


@task
async def tick() -> None: ...


@task
async def tock(ctx: Context, signal: CancelSignal) -> str:
    return ctx.run.id


@task
def watch(signal: CancelSignal) -> list[Point]:
    return []


@task(retry=3, isolation="process", on_lost="fail")
async def anything(payload: object) -> dict[str, int]:
    return {}


@charge.on_failure
async def alert(payload: Order, error: BaseException, ctx: Context) -> None: ...


@tasks.on_complete
def told(result: Result[Receipt]) -> None: ...


@tasks.on_success("named")
async def named(output: object) -> None: ...


Name = Local[str]("name")


@tasks.middleware("name")
async def names(ctx: Context, next: Next) -> None:
    Name.set(ctx.run.id)
    await next()
    assert_type(Name.get(), str | None)
    assert_type(Name.get_or_raise(), str)


@charge.catch_error
def decided(error: BaseException) -> SkipRetrying | RetryAt | RetryWith | None:
    return RetryAt("5m") if isinstance(error, ConnectionError) else RetryWith(Retry(max_attempts=2))


@task(on_cancel=[alert, told], middleware=names, catch_error=decided)
async def hooked() -> None:
    _: Callable[[Result[Receipt]], None] = told


emails = queue("emails", concurrency_limit=5, most_queued=10_000)
openai = concurrency_limit("openai", total=25, per_key=None, rate=RateLimit(500, "1m"))


@task(queue=emails, concurrency=[Concurrency(total=5), RateLimit(1, 1, per_key=True), openai, "tenant"], ttl="1d")
async def bounded() -> None: ...


@task(queue="emails", concurrency=5)
async def bounded_shortly() -> None: ...


@task(concurrency=openai)
async def bounded_by_name() -> None: ...


@schema_task(schema=Order, id="by-model")
async def by_model(order: Order) -> int:
    return order.amount


@schema_task(schema=TypeAdapter(list[int]))
def by_adapter(numbers: list[int]) -> int:
    return sum(numbers)


def to_point(value: int) -> Point:
    return Point(value)


@schema_task(schema=to_point)
async def by_parser(point: Point, ctx: Context) -> None: ...


ORDER = Order(id="o1", amount=5)


async def triggering(ctx: Context) -> None:
    assert_type(await charge.trigger(ORDER, delay="1h", tags=["user:7"]), RunHandle[Receipt])
    assert_type(await charge.trigger_and_wait(ORDER), Result[Receipt])
    assert_type(await charge.trigger_and_wait(ORDER).unwrap(), Receipt)
    assert_type((await charge.trigger_and_wait(ORDER)).unwrap_or(None), Receipt | None)
    assert_type(await charge.call(ORDER), Receipt)
    assert_type(await charge.batch_trigger([ORDER, charge.item(ORDER, delay="5m")]), BatchHandle[Receipt])
    assert_type(await charge.batch_trigger_and_wait([ORDER, ORDER]), BatchResult[Receipt])
    assert_type(await shrink.call("images"), int)
    assert_type(await tick.trigger(), RunHandle[None])
    assert_type(await tick.trigger(delay=timedelta(hours=1)), RunHandle[None])
    assert_type(await tock.call(priority=10), str)
    assert_type(await watch.call(), list[Point])
    assert_type(await anything.call({"any": ["thing"]}), dict[str, int])
    assert_type(await tick.batch_trigger([tick.item(), tick.item(tags="a")]), BatchHandle[None])
    assert_type(await by_model.call(ORDER), int)
    assert_type(await by_adapter.call([1]), int)
    assert_type(await by_parser.call(5), None)

    assert_type(await charge(ORDER, ctx), Receipt)
    assert_type(shrink("images", CancelSignal()), int)
    assert_type(await by_parser(Point(1), ctx), None)
    assert_type(await tick(), None)


async def every_option() -> None:
    await charge.trigger(
        ORDER,
        delay=datetime(2030, 1, 1, tzinfo=UTC),
        tags="one",
        max_attempts=3,
        max_duration="1m",
        metadata={"a": [1, {"b": ORDER}]},
        idempotency_key=["order", "o1"],
        idempotency_key_ttl="1h",
        queue="cards",
        concurrency_key="user 7",
        concurrency="openai",
        priority=1.5,
        ttl=0,
        debounce=Debounce("o1", "5s", mode="trailing", max_delay="1m"),
        version="v2",
    )
    await charge.trigger_and_wait(ORDER, queue=emails, concurrency=[openai, "tenant"], concurrency_key=7)
    await charge.trigger(ORDER, queue=INHERIT, concurrency_key=INHERIT, tags=INHERIT, metadata=INHERIT, concurrency=[])
    child: ChildOptions = {"ttl": "10m"}
    await charge.call(ORDER, **child)
    await charge.trigger(ORDER, **child)
    options: TriggerOptions = {"delay": "1h"}
    await charge.trigger(ORDER, **options)


async def flow_control() -> None:
    assert_type(await queues.retrieve("emails"), RetrievedQueue)
    assert_type(await queues.pause(emails), RetrievedQueue)
    assert_type(await queues.resume(charge), RetrievedQueue)
    assert_type(await queues.pause(tick), RetrievedQueue)
    assert_type(await queues.pause(tasks.ref("charge")), RetrievedQueue)
    await queues.override_concurrency_limit(emails, None)
    assert_type(await queues.list(page=2, per_page=10), Page[RetrievedQueue])
    async for found in queues.list():
        assert_type(found, RetrievedQueue)
        assert_type(found.concurrency.current, int | None)
    assert_type(await concurrency_limits.override(openai, total=50, rate=None), RetrievedLimit)
    assert_type(await concurrency_limits.override(charge, concurrency_key=7, per_key=3, ttl="1d"), RetrievedLimit)
    assert_type(await concurrency_limits.reset("openai", concurrency_key="user 7"), RetrievedLimit)
    assert_type([limit async for limit in concurrency_limits.list()], list[RetrievedLimit])
    assert_type((await concurrency_limits.retrieve("openai")).rate, RateLimit | None)
    assert_type(await runs.reschedule(await charge.trigger(ORDER, delay="1h"), "2h"), Run[Receipt])
    assert_type(await runs.reschedule("run_1", datetime(2030, 1, 1, tzinfo=UTC)), Run[JsonValue])


def flow_control_in_a_script() -> None:
    assert_type(queues.sync.pause(emails), RetrievedQueue)
    assert_type(concurrency_limits.sync.override("openai", total=5), RetrievedLimit)
    assert_type(concurrency_limits.sync.override("openai", concurrency_key="k", per_key=5), RetrievedLimit)
    assert_type(runs.sync.reschedule("run_1", "2h"), Run[JsonValue])


async def streaming() -> None:
    def some() -> Iterator[Order]:
        yield ORDER

    async def more() -> AsyncIterator[Order]:
        yield ORDER

    await charge.batch_trigger(some())
    await charge.batch_trigger(more(), tags="all")


async def results() -> None:
    result = await charge.trigger_and_wait(ORDER)
    if result.ok:
        assert_type(result.output, Receipt)
    else:
        assert_type(result.error, RunError)
    match result:
        case Ok(output):
            assert_type(output, Receipt)
        case Err(error):
            assert_type(error, RunError)
    done = await charge.batch_trigger_and_wait([ORDER])
    for run in done.runs:
        assert_type(run, Ok[Receipt] | Err)


async def parallel() -> None:
    one, two = await asyncio.gather(charge.trigger_and_wait(ORDER), shrink.trigger_and_wait("images"))
    assert_type(one, Ok[Receipt] | Err)
    assert_type(two, Ok[int] | Err)
    async with asyncio.TaskGroup() as group:
        child = group.create_task(charge.trigger_and_wait(ORDER))
    assert_type(child.result(), Result[Receipt])
    assert_type(await asyncio.wait_for(charge.trigger_and_wait(ORDER), 5), Ok[Receipt] | Err)


async def by_id() -> None:
    assert_type(await tasks.trigger("charge", {"id": "o1", "amount": 5}), RunHandle[JsonValue])
    assert_type(await tasks.trigger_and_wait("charge", ORDER), Result[JsonValue])
    assert_type(await tasks.trigger_and_poll("charge", {}, timeout="1m"), Run[JsonValue])
    assert_type(await charge.trigger_and_poll(ORDER, timeout="1m", tags="a"), Run[Receipt])
    assert_type(await tick.trigger_and_poll(delay="1s"), Run[None])
    assert_type(tasks.ref("charge", payload=Order, output=Receipt), TaskRef[Order, Receipt])
    assert_type(tasks.ref("charge", payload=TypeAdapter(list[int]), output=Receipt), TaskRef[list[int], Receipt])
    assert_type(tasks.ref("charge", output=Receipt), TaskRef[object, Receipt])
    assert_type(tasks.ref("charge"), TaskRef[object, JsonValue])
    await batch.trigger([tasks.item("charge", {}), charge.item(ORDER), tick.item()])
    assert_type(await batch.trigger_and_wait([charge.item(ORDER), charge.item(ORDER)]), BatchResult[Receipt])
    made = await charge.batch_trigger([ORDER])
    assert_type(made.runs[0], RunHandle[Receipt])
    assert_type(made.runs[:2], Sequence[RunHandle[Receipt]])
    assert_type(await batch.retrieve(made), BatchRecord)
    assert_type(batch.sync.retrieve("batch_…"), BatchRecord)


async def in_bulk() -> None:
    assert_type(await runs.bulk.cancel(filter={"status": "FAILED", "tags": ["a"], "period": "1d"}), BulkRecord)
    assert_type(await runs.bulk.replay(run_ids=["run_…", await charge.trigger(ORDER)], name="again"), BulkRecord)
    assert_type(await runs.bulk.list(), Page[BulkRecord])
    assert_type(runs.sync.bulk.poll("bulk_…", timeout="1m"), BulkRecord)


async def tokens(point_adapter: TypeAdapter[list[Point]]) -> None:
    token = await wait.create_token(output=Receipt, timeout="10m", tags=["user:7"], idempotency_key="k")
    assert_type(token, Token[Receipt])
    assert_type(await wait.create_token(timeout=datetime.now(UTC)), Token[JsonValue])
    assert_type(await wait.create_token(output=point_adapter), Token[list[Point]])
    result = await wait.for_token(token)
    assert_type(result, Result[Receipt])
    if result.ok:
        assert_type(result.output, Receipt)
    else:
        assert_type(result.error, RunError)
    assert_type(await wait.for_token(token).unwrap(), Receipt)
    assert_type(await wait.for_token(token.id, output=Receipt), Result[Receipt])
    assert_type(await wait.for_token("waitpoint_…"), Result[JsonValue])
    one, two = await asyncio.gather(wait.for_token(token), wait.for_token("waitpoint_…"))
    assert_type((one, two), tuple[Result[Receipt], Result[JsonValue]])
    assert_type(await wait.complete_token(token, Receipt(order_id="o1", charged=5)), bool)
    assert_type(await wait.complete_token(token.id, {"any": ["thing"]}), bool)
    assert_type((await wait.retrieve_token(token)).output, Receipt | None)
    assert_type(await wait.retrieve_token(token.id), RetrievedToken[JsonValue])
    assert_type(await wait.list_tokens(status=TokenStatus.WAITING), Page[RetrievedToken[JsonValue]])
    async for found in wait.list_tokens(tags="a"):
        assert_type(found, RetrievedToken[JsonValue])
    await wait.for_(days=1, idempotency_key="k", idempotency_key_ttl="1h")
    await Client(database_url="postgresql://…").wait.create_token()


def blocking_tokens() -> None:
    token = wait.sync.create_token(output=Receipt)
    assert_type(token, Token[Receipt])
    assert_type(wait.sync.for_token(token), Result[Receipt])
    assert_type(wait.sync.for_token(token.id).unwrap(), JsonValue)
    assert_type(wait.sync.retrieve_token(token.id, output=Receipt), RetrievedToken[Receipt])
    assert_type(wait.sync.complete_token(token.id), bool)
    for found in wait.sync.list_tokens().sync:
        assert_type(found.status, TokenStatus)


async def results_of_batches() -> None:
    handle = await charge.batch_trigger([ORDER])
    assert_type(handle.run_count, int)
    assert_type(await batch.results(handle), BatchResult[Receipt])
    assert_type(await batch.poll("batch_1", timeout="1m"), BatchResult[JsonValue])
    assert_type(batch.sync.poll(handle), BatchResult[Receipt])


async def reading() -> None:
    handle = await charge.trigger(ORDER)
    assert_type(await runs.retrieve(handle), Run[Receipt])
    assert_type((await runs.poll(handle)).output, Receipt | None)
    assert_type(await runs.retrieve("run_1"), Run[JsonValue])
    assert_type(await runs.replay(handle), RunHandle[Receipt])
    assert_type(await runs.replay("run_1", payload=ORDER, machine="micro", tags=["a"]), RunHandle[JsonValue])
    assert_type(runs.sync.replay(handle, delay="1h"), RunHandle[Receipt])
    assert_type(await runs.cancel(handle), bool)
    assert_type(await runs.update_metadata(handle, {"a": [1]}), dict[str, JsonValue])
    await runs.add_tags("run_1", ["a"])
    async for line in runs.logs(handle, follow=True):
        assert_type(line, RunLog)
    assert_type(await runs.list(status="FAILED", queue=["a"], is_test=False, period="1d", bulk_id=None), RunPage)
    async for run in runs.list():
        assert_type(run, Run[JsonValue])


def in_a_script() -> None:
    assert_type(charge.sync.trigger(ORDER, delay="1h"), RunHandle[Receipt])
    assert_type(charge.sync.call(ORDER), Receipt)
    assert_type(charge.sync.trigger_and_wait(ORDER), Result[Receipt])
    assert_type(charge.sync.batch_trigger([ORDER], tags="a"), BatchHandle[Receipt])
    assert_type(tick.sync.trigger(), RunHandle[None])
    assert_type(tasks.sync.trigger("charge", {}), RunHandle[JsonValue])
    assert_type(runs.sync.retrieve(charge.sync.trigger(ORDER)), Run[Receipt])
    assert_type(runs.sync.retrieve("run_1"), Run[JsonValue])
    assert_type(runs.sync.list(limit=5), RunPage)
    assert_type(wait.sync.for_(seconds=5), None)


async def the_rest() -> None:
    await wait.for_(seconds=5)
    await wait.for_("1h30m")
    await wait.until(datetime(2030, 1, 1, tzinfo=UTC), raise_if_past=True)
    assert_type(idempotency_keys.create(["a", "b"], scope="global"), IdempotencyKey)
    await idempotency_keys.reset("charge", "k", scope="global")
    logger.info("charged", order="o1", amount=5)
    with logger.trace("resize") as span:
        span.set(width=7)
    async with Client(database_url="postgresql://") as client:
        assert_type(await client.tasks.trigger("charge"), RunHandle[JsonValue])


@step
async def fetch_rate(currency: str, *, at: datetime | None = None) -> float:
    return 1.5


@step(name="count", retry=Retry(max_attempts=5))
def count_words(text: str) -> dict[str, int]:
    return {text: 1}


@step(retry=3)
async def note() -> None: ...


class Bank:
    @step
    async def fetch(self, currency: str) -> Receipt:
        return Receipt(order_id="o1", charged=5)

    @step(name="take")
    def take(self, currency: str) -> Receipt:
        return Receipt(order_id="o1", charged=5)


async def plain_rate(currency: str, digits: int = 2) -> float:
    return 1.5


def plain_count(text: str) -> int:
    return len(text)


async def steps(bank: Bank) -> None:
    assert_type(await step("rate", plain_rate, "EUR"), float)
    assert_type(await step("rate", plain_rate, "EUR", digits=3), float)
    assert_type(await step("count", plain_count, "a b"), int)
    assert_type(await step("rate", fetch_rate, "EUR"), float)
    assert_type(await step("lambda", lambda: plain_rate("EUR")), float)
    assert_type(await step("now", datetime.now, UTC), datetime)
    assert_type(await step("fetch", bank.fetch, "EUR"), Receipt)
    assert_type(await fetch_rate("EUR", at=datetime(2030, 1, 1, tzinfo=UTC)), float)
    assert_type(await count_words.async_("a b"), dict[str, int])
    assert_type(await note(), None)
    assert_type(await bank.fetch("EUR"), Receipt)
    assert_type(await bank.take.async_("EUR"), Receipt)
    one, two = await asyncio.gather(bank.fetch("EUR"), fetch_rate("EUR"))
    assert_type(one, Receipt)
    assert_type(two, float)
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(step("count", plain_count, "a b"))
    assert_type(taking.result(), int)
    pair = await asyncio.gather(step("rate", plain_rate, "EUR"), step("count", plain_count, "a b"))
    assert_type(pair, tuple[float, int])


def steps_in_a_thread(bank: Bank) -> None:
    assert_type(step.sync("rate", plain_rate, "EUR"), float)
    assert_type(step.sync("count", plain_count, text="a b"), int)
    assert_type(fetch_rate.sync("EUR"), float)
    assert_type(count_words("a b"), dict[str, int])
    assert_type(bank.fetch.sync("EUR"), Receipt)
    assert_type(bank.take("EUR"), Receipt)


@schedules.task(id="daily", cron=Cron("0 5 * * *", timezone="Asia/Tokyo", environments=["production"]), retry=5)
async def daily(payload: ScheduledPayload, ctx: Context) -> int:
    return payload.local.day


@schedules.task(cron="0 5 * * *")
def nightly() -> str:
    return "done"


async def scheduling(payload: ScheduledPayload) -> None:
    assert_type(await daily.trigger(payload), RunHandle[int])
    assert_type(await nightly.trigger(), RunHandle[str])
    made = await schedules.create(task=daily, cron="0 5 * * *", overlap="skip", deduplication_key="daily")
    assert_type(made, ScheduleRecord)
    assert_type(await schedules.update(made.id, window=timedelta(minutes=5)), ScheduleRecord)
    async for schedule in schedules.list():
        assert_type(schedule, ScheduleRecord)


def scheduling_in_a_thread() -> None:
    assert_type(schedules.sync.create(task="daily", cron=Cron("0 5 * * *")), ScheduleRecord)
    assert_type(schedules.sync.list(), Page[ScheduleRecord])


async def variables(ctx: Context) -> None:
    assert_type(await envvars.list(environment="prod"), list[EnvVar])
    assert_type((await envvars.retrieve("API_URL")).value, str | None)
    assert_type(await envvars.upload({"A": "1"}, override=True), tuple[str, ...])
    await envvars.upload("A=1", is_secret=True)
    assert_type(ctx.environment.type, EnvironmentType)
    assert_type(ctx.environment.branch_name, str | None)
    Client(database_url="postgresql://…", environment="preview", branch="feat/x")


def variables_in_a_thread() -> None:
    assert_type(envvars.sync.retrieve("A"), EnvVar)
    assert_type(envvars.sync.create("A", "1", is_secret=True), None)


async def passed_on(ref: TaskRef[Order, Receipt]) -> Receipt:
    return await ref.call(ORDER)


async def passing_on() -> None:
    coroutine: Coroutine[Any, Any, Receipt] = passed_on(charge)
    await coroutine


async def trying_again() -> None:
    assert_type(await retry.on_throw(lambda number: fetch_rate("EUR"), 5), float)
    assert_type(await retry.on_throw(lambda number: fetch_rate("EUR"), Retry(max_attempts=2)), float)
    assert_type(await retry.on_throw(lambda: fetch_rate("EUR"), max_attempts=5, min_timeout="100ms"), float)
    assert_type(retry.sync.on_throw(lambda number: number), int)
    assert_type(retry.sync.on_throw(lambda: "there", factor=1), str)
    FetchRetry(by_status={429: Retry(), "5xx": AtReset(reset="retry-after"), range(500, 600): Retry()}, retry_if=bool)
    every = FetchRetry(by_status={"429": AtReset(reset="x-reset", format=ResetFormat.UNIX_SECONDS)}, timeout=None)
    response = await retry.fetch("https://example.com", retry=every, method="POST", json={"a": [1]}, timeout="5s")
    assert_type(response.status_code, int)


async def in_a_transaction(connection: object) -> None:
    assert_type(await charge.trigger(ORDER, connection=connection, tags="a"), RunHandle[Receipt])
    assert_type(await tick.trigger(connection=connection), RunHandle[None])
    assert_type(await tasks.trigger("charge", {}, connection=connection), RunHandle[JsonValue])


def in_a_blocking_transaction(connection: object) -> None:
    assert_type(charge.sync.trigger(ORDER, connection=connection), RunHandle[Receipt])


async def says_how_far_it_is() -> None:
    assert_type(metadata.get("progress"), JsonValue)
    assert_type(metadata.current(), dict[str, JsonValue] | None)
    metadata.set("state", "charging").increment("$.progress.done", 0.5).parent.append("log", {"at": 1}).remove("log", None)
    metadata.root.replace({"done": 1}).decrement("done").set("at", datetime.now(UTC)).append("orders", ORDER).replace(ORDER)
    await metadata.flush()
    await tags.add("user:7")
    await tags.add(f"order:{number}" for number in range(3))


def says_so_in_a_thread() -> None:
    assert_type(metadata.sync.refresh(), None)
    assert_type(tags.sync.add(["user:7"]), None)


config = define_config(
    project="shop", dirs=["tasks"], retries=Retries(enabled_in_dev=False, default=Retry()), max_duration="1h",
    retention=Retention(default="30d", statuses={"FAILED": None}, tasks={"noisy": "1d", "charge": {"COMPLETED": 86_400}}),
)
