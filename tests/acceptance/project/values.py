"""Tasks that take and give values of all sorts."""

from __future__ import annotations

import math
from datetime import datetime

from pydantic import BaseModel

from detent import Context, DetentError, task, wait
from tests.acceptance.bad import BAD_JSON


class Order(BaseModel):
    id: str
    amount: int


@task
async def anything(payload: object) -> None:
    return None


@task
async def charge(order: Order) -> int:
    return order.amount


@task
async def giving(what: str, ctx: Context) -> object:
    """Return what cannot be stored."""
    return BAD_JSON[what]()


@task
async def giving_the_wrong_type(n: int) -> int:
    return f"{n} pounds"  # type: ignore[return-value]


@task
async def asking_badly(what: str) -> list[str]:
    """Trigger children badly, then well: what was refused has left nothing in the journal."""
    errors = []
    for call in (
        lambda: anything.trigger_and_wait(BAD_JSON[what]()),
        lambda: anything.batch_trigger_and_wait([1, BAD_JSON[what]()]),
        lambda: wait.until(datetime(2030, 1, 1)),
        lambda: wait.for_(seconds=math.nan),
    ):
        try:
            await call()
        except (DetentError, ValueError) as error:
            errors.append(type(error).__name__)
    await anything.trigger_and_wait(1)
    return errors
