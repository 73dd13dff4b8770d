"""`detent trigger`: start a run of a task by its id, and wait for it if asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from detent.cli import database, failure, printing
from detent.cli.options import DEFAULT_ENVIRONMENT, Environment, Json

if TYPE_CHECKING:
    from detent.cli.calling import Caller
    from detent.protocol.codec import JsonValue
    from detent.sdk.handles import RunHandle
    from detent.sdk.options import TriggerOptions
    from detent.sdk.runs import Run

app = typer.Typer()


@app.command()
def trigger(
    task_id: Annotated[str, typer.Argument(metavar="ID", help="The task's id.")],
    payload: Annotated[str | None, typer.Option(metavar="JSON", help="The payload.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the run's end and print its output.")] = False,
    delay: Annotated[str | None, typer.Option(help='Start no sooner than after, such as "30s" or "2h".')] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag of the run; may be repeated.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key gives the same run again.")] = None,
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """Trigger a run of a task."""
    options: TriggerOptions = {"tags": tag or []}
    if delay:
        options["delay"] = delay
    if idempotency_key:
        options["idempotency_key"] = idempotency_key
    value = read_json("--payload", payload)
    raise typer.Exit(asyncio.run(_trigger(task_id, value, options, environment, is_waiting=wait, as_json=as_json)))


def read_json(option: str, text: str | None) -> JsonValue:
    """Return the value of an option that is JSON. Raises `UsageError`."""
    from detent.errors import SerializationError
    from detent.protocol import codec

    try:
        return None if text is None else codec.decode(text, what=option)
    except SerializationError as error:
        raise failure.UsageError(f'{option}: {error.why}; quote it as in {option} \'{{"name": "Ada"}}\'') from error


async def _trigger(
    task_id: str, payload: JsonValue, options: TriggerOptions, environment: str, *, is_waiting: bool, as_json: bool
) -> int:
    from detent.cli.calling import calling

    async with database.opened() as dsn, calling(dsn, environment) as caller:
        handle = await caller.client.tasks.trigger(task_id, payload, **options)
        await _warn_of_absence(caller, task_id)
        if is_waiting:
            return show_end(await ended(caller, handle), as_json=as_json)
    show_handle(handle, as_json=as_json)
    return 0


async def _warn_of_absence(caller: Caller, task_id: str) -> None:
    """Say so when nobody is there to execute the run."""
    known = {task.task_id: task for task in await caller.backend.list_tasks()}
    if task_id in known:
        if not known[task_id].has_live_worker:
            failure.warn(f'no live worker has task "{task_id}"; the run waits until one starts: `detent dev`')
        return
    failure.warn(f'no worker has registered task "{task_id}"{_nearest(task_id, known)}; the run waits until one does')


def _nearest(task_id: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(task_id, list(known), n=1)
    return f' (did you mean "{near[0]}"?)' if near else ""


async def ended(caller: Caller, handle: RunHandle[JsonValue]) -> Run[JsonValue]:
    """Return the run when it has ended."""
    try:
        return await caller.client.runs.poll(handle)
    except asyncio.CancelledError:
        failure.warn(f"stopped waiting; the run goes on: detent runs get {handle.id}")
        raise


def show_handle(handle: RunHandle[JsonValue], *, as_json: bool) -> None:
    if as_json:
        printing.as_json({"id": handle.id, "task_id": handle.task_id, "is_cached": handle.is_cached})
    elif handle.is_cached:
        print(f"{handle.id} of an earlier trigger with the same idempotency key stands for it")
    else:
        print(f"{handle.id} triggered; see it with: detent runs get {handle.id}")


def show_end(run: Run[JsonValue], *, as_json: bool) -> int:
    """Print how a run ended; return the exit code that says so."""
    if as_json:
        printing.as_json(run)
    elif run.is_success:
        printing.as_json(run.output)
    else:
        reason = f": {run.error}" if run.error else ""
        failure.complain("error", f"run {run.id} is {run.status.value} after {run.attempt} attempts{reason}")
    return 0 if run.is_success else failure.FAILED
