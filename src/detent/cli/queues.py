"""`detent queues`: look at queues, pause them, and change their limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from detent.cli import failure, printing
from detent.cli.calling import call
from detent.cli.options import DEFAULT_ENVIRONMENT, Environment, Json

if TYPE_CHECKING:
    from detent.cli.calling import Caller
    from detent.sdk.queues import RetrievedQueue

QueueArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="QUEUE", help="The queue's name or id; a task's own queue is task/ID.")
]

app = typer.Typer(name="queues", help="Look at queues, pause them, and change their limits.", no_args_is_help=True)


@app.command("list")
def list_(environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False) -> None:
    """List queues by name, with what goes on in them."""

    async def listed(caller: Caller) -> list[RetrievedQueue]:
        return [queue async for queue in caller.client.queues.list(per_page=100)]

    found = call(environment, listed)
    if as_json:
        printing.as_json(found)
    elif not found:
        print(f'there is no queue in environment "{environment}" yet; a worker registers them, or `detent trigger`')
    else:
        printing.table(["QUEUE", "RUNNING", "QUEUED", "LIMIT", "STATE"], map(_row, found))


def _row(queue: RetrievedQueue) -> list[str]:
    state = "paused" if queue.paused else "open"
    return [queue.name, str(queue.running), str(queue.queued), printing.bound(queue.concurrency), state]


@app.command()
def pause(queue: QueueArgument, environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False) -> None:
    """Start none of its runs any more; those that execute go on."""
    _show(call(environment, lambda caller: caller.client.queues.pause(queue)), as_json=as_json)


@app.command()
def resume(queue: QueueArgument, environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False) -> None:
    """Undo a pause."""
    _show(call(environment, lambda caller: caller.client.queues.resume(queue)), as_json=as_json)


@app.command()
def limit(
    queue: QueueArgument,
    number: Annotated[
        int | None, typer.Argument(metavar="[N]", min=0, help="Its runs that may execute at once.")
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="As many as there are.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="As many as the code declares.")] = False,
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """Change how many of its runs may execute at once, also over deploys; or show it.

    Runs with a concurrency key are counted for each key by themselves.
    """
    if (number is not None) + none + reset > 1:
        raise failure.UsageError("give one of N, --none and --reset")

    async def limited(caller: Caller) -> RetrievedQueue:
        queues = caller.client.queues
        if reset:
            return await queues.reset_concurrency_limit(queue)
        if none or number is not None:
            return await queues.override_concurrency_limit(queue, number)
        return await queues.retrieve(queue)

    _show(call(environment, limited), as_json=as_json)


def _show(queue: RetrievedQueue, *, as_json: bool) -> None:
    if as_json:
        printing.as_json(queue)
        return
    state = "paused" if queue.paused else "open"
    bound = printing.bound(queue.concurrency)
    print(f"{queue.name} is {state}; limit: {bound}; {queue.running} running, {queue.queued} queued")
