"""Tasks with hooks that tell the ledger."""

from __future__ import annotations

from detent import Context, task, wait
from tests.acceptance.ledger import note
from tests.acceptance.project.gated import opened


@task
async def praised(n: int, ctx: Context) -> int:
    note("body", ctx)
    return n


@praised.on_success
async def praise(ctx: Context, output: int) -> None:
    note("hook", ctx, str(output))
    await opened()
    note("hook end", ctx)


@task
async def patient(ctx: Context) -> None:
    note("body", ctx)
    await wait.for_("1h")


@patient.on_cancel
def console(ctx: Context) -> None:
    note("hook", ctx)
