"""Subscriptions: money is taken once, whatever fails, and a run that waits for a year costs nothing."""

import httpx
from pydantic import BaseModel, Field

from detent import (
    AbortTaskRunError,
    AtReset,
    Context,
    Err,
    FetchRetry,
    Local,
    Next,
    Ok,
    ResetFormat,
    Retry,
    RetryAt,
    RetryWith,
    SkipRetrying,
    WaitInfo,
    idempotency_keys,
    logger,
    retry,
    schema_task,
    task,
    wait,
)
from tasks.newsletter import Reader, welcome


class Subscription(BaseModel):
    reader: str = Field(pattern="@")
    cents: int


class Receipt(BaseModel):
    number: str
    attempt: int


class CardRefusedError(Exception):
    pass


class BankClosedError(Exception):
    pass


Bank = Local[httpx.AsyncClient]("bank")
"""The connection to the bank, of one attempt."""

AGAIN = FetchRetry(
    by_status={
        "429": AtReset(reset="retry-after", format=ResetFormat.SECONDS),
        "5xx": Retry(max_attempts=3, min_timeout="50ms"),
    }
)


async def at_the_bank(next: Next) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(_answer)) as client:
        Bank.set(client)
        await next()


def _answer(request: httpx.Request) -> httpx.Response:
    """Answer in the place of a bank: one reader has no money, and one comes before it opens."""
    name, number = request.url.params["reader"].partition("@")[0], int(request.url.params["attempt"])
    status = {("Poor", number): 402, ("Early", 1): 423}.get((name, number), 200)
    return httpx.Response(status, json={"number": f"paid by {name}"}, headers={"retry-after": "1"})


@schema_task(schema=Subscription, middleware=at_the_bank, retry=Retry(max_attempts=5))
async def charge(subscription: Subscription, ctx: Context) -> Receipt:
    """Take the money."""
    if subscription.cents <= 0:
        raise AbortTaskRunError("a free subscription is not charged")
    asked: dict[str, str | int] = {
        "reader": subscription.reader,
        "cents": subscription.cents,
        "attempt": ctx.attempt.number,
    }
    response = await retry.fetch(
        "https://bank.example/charges",
        method="POST",
        params=asked,
        retry=AGAIN,
        timeout="5s",
        client=Bank.get_or_raise(),
    )
    match response.status_code:
        case 402:
            raise CardRefusedError(f"the card of {subscription.reader} was refused")
        case 423:
            raise BankClosedError
        case _:
            return Receipt(number=response.json()["number"], attempt=ctx.attempt.number)


@charge.on_start_attempt
def prepare(ctx: Context) -> None:
    logger.info("to the bank", attempt=ctx.attempt.number)


@charge.catch_error
def decide(error: BaseException) -> SkipRetrying | RetryAt | RetryWith | None:
    match error:
        case CardRefusedError():
            return SkipRetrying()
        case BankClosedError():
            return RetryAt("1h")
        case httpx.TransportError():
            return RetryWith(Retry(max_attempts=5, min_timeout="1m", max_timeout="1h"))  # its line is down, not ours
    return None


@charge.on_success
def book(payload: Subscription, output: Receipt) -> None:
    logger.info("booked", reader=payload.reader, number=output.number)


@task
async def subscribe(subscription: Subscription) -> str:
    """Charge, once a day at most however often somebody clicks; welcome; and be over after a year."""
    key = idempotency_keys.create(["charge", subscription.reader], scope="global")
    match await charge.trigger_and_wait(subscription, idempotency_key=key, idempotency_key_ttl="1d"):
        case Err(error):
            return error.message
        case Ok(receipt):
            await welcome.trigger(Reader(subscription.reader, is_paying=True), delay="10s", idempotency_key="welcome")
    await wait.for_(days=365)
    return f"{receipt.number}, for a year"


@subscribe.on_wait
@subscribe.on_resume
def follow(wait: WaitInfo) -> None:
    logger.debug("a wait", kind=wait.kind)


@subscribe.on_cancel
def say_goodbye(payload: Subscription, reason: str) -> None:
    logger.info("goodbye", reader=payload.reader, reason=reason)
