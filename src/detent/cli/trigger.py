"""`detent trigger`: start a run of a task by its id, and wait for it if asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, cast

import typer

from detent.cli import failure, printing
from detent.cli.calling import call
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
    ttl: Annotated[str | None, typer.Option(help='Expire if not started after, such as "10m"; "0s" is never.')] = None,
    queue: Annotated[str | None, typer.Option(help="Another queue than the task's.")] = None,
    concurrency_key: Annotated[
        str | None, typer.Option(help="Runs with different keys have lines of their own.")
    ] = None,
    priority: Annotated[float | None, typer.Option(help="Seconds by which the run goes before others.")] = None,
    machine: Annotated[str | None, typer.Option(help="Another machine than the task's, by its name.")] = None,
    version: Annotated[
        str | None, typer.Option(help="Only workers of this version run it.  [default: what DETENT_VERSION says]")
    ] = None,
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """Trigger a run of a task."""
    given = {
        "delay": delay, "idempotency_key": idempotency_key, "ttl": ttl, "queue": queue, "concurrency_key": concurrency_key,
        "priority": priority, "machine": machine, "version": version,
    }  # fmt: skip
    options = cast("TriggerOptions", {"tags": tag or [], **{name: value for name, value in given.items() if value}})
    value = read_json("--payload", payload)
    raise typer.Exit(
        call(environment, lambda caller: _trigger(caller, task_id, value, options, is_waiting=wait, as_json=as_json))
    )


def read_json(option: str, text: str | None) -> JsonValue:
    """Return the value of an option that is JSON. Raises `UsageError`."""
    from detent.errors import SerializationError
    from detent.protocol import codec

    try:
        return None if text is None else codec.decode(text, what=option)
    except SerializationError as error:
        raise failure.UsageError(f'{option}: {error.why}; quote it as in {option} \'{{"name": "Ada"}}\'') from error


async def _trigger(
    caller: Caller, task_id: str, payload: JsonValue, options: TriggerOptions, *, is_waiting: bool, as_json: bool
) -> int:
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
    return exit_code(run)


def exit_code(run: Run[JsonValue]) -> int:
    return 0 if run.is_success else failure.FAILED
