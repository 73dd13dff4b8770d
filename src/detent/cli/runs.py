"""`detent runs`: look at runs, watch them, read their logs, cancel, replay and reschedule them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from detent.cli import bulk, filters, overrides, printing
from detent.cli.calling import call
from detent.cli.grouping import grouped
from detent.cli.options import DEFAULT_ENVIRONMENT, Environment, Json
from detent.errors import ConfigError
from detent.protocol import codec

if TYPE_CHECKING:
    from detent.cli.calling import Caller
    from detent.protocol.bulk import BulkRecord
    from detent.protocol.codec import JsonValue
    from detent.sdk.options import TriggerOptions
    from detent.sdk.run_logs import RunLog
    from detent.sdk.runs import Run

RunArgument: TypeAlias = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]

app = typer.Typer(
    name="runs", help="Look at runs, read their logs, cancel, replay and reschedule them.", no_args_is_help=True
)


@app.command("list")
@grouped(query=filters.SELECTING)
def list_(
    query: filters.Query,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 25,
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """List runs, newest first: all, or those that the options select."""

    async def page(caller: Caller) -> list[Run[JsonValue]]:
        return list(await caller.client.runs.list(limit=limit, **query))

    found = call(environment, page)
    if as_json:
        printing.as_json(found)
    elif not found:
        print("no runs" + (" match" if query else " yet; start one with `detent trigger`"))
    else:
        printing.table(["RUN", "TASK", "STATUS", "ATTEMPT", "CREATED", "DURATION"], map(_row, found))


def _row(run: Run[JsonValue]) -> list[str]:
    return [run.id, run.task_id, run.status.value, str(run.attempt), printing.ago(run.created_at), _duration(run)]


def _duration(run: Run[JsonValue]) -> str:
    return printing.seconds(run.finished_at - run.started_at) if run.finished_at and run.started_at else ""


@app.command()
def get(run_id: RunArgument, environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False) -> None:
    """Show a run."""
    run = call(environment, lambda caller: caller.client.runs.retrieve(run_id))
    if as_json:
        printing.as_json(run)
    else:
        from detent.cli import run_page

        run_page.show(run)


@app.command()
def logs(
    run_id: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """Print what a run has logged and printed."""
    call(environment, lambda caller: _print_logs(caller, run_id, follows=follow, as_json=as_json))


async def _print_logs(caller: Caller, run_id: str, *, follows: bool, as_json: bool) -> None:
    async for line in caller.client.runs.logs(run_id, follow=follows):
        _print_line(line, as_json=as_json)


def _print_line(line: RunLog, *, as_json: bool) -> None:
    if as_json:
        print(printing.json_line(line), flush=True)
    else:
        at = line.at.astimezone().strftime("%H:%M:%S.%f")[:-3]
        fields = codec.encode(line.fields, what="fields") if line.fields else ""
        print(f"{at} {line.level:<5} {line.message}", fields, flush=True)


@app.command()
def watch(run_id: RunArgument, environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False) -> None:
    """Print a run's status and metadata as they change, until it has ended; with --json, the run each time."""
    from detent.cli import run_watch

    raise typer.Exit(call(environment, lambda caller: run_watch.watch(caller, run_id, as_json=as_json)))


@app.command()
@grouped(query=filters.SELECTING)
def cancel(
    run_ids: Annotated[list[str] | None, typer.Argument(metavar="RUN...", help="The runs' ids.")] = None,
    is_filtered: bulk.Filtered = False,
    *,
    query: filters.Query,
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """Cancel runs, with all their children: those named, or with --filter all that the options select."""
    selected = bulk.selected(query, is_filtered=is_filtered, is_named=bool(run_ids))
    if selected is None:
        _cancel_named(run_ids or [], environment, as_json=as_json)
        return

    async def cancelled(caller: Caller) -> BulkRecord:
        return await bulk.carry_out(caller, lambda: caller.client.runs.bulk.cancel(filter=selected))

    bulk.show(call(environment, cancelled), done="cancelled", as_json=as_json)


def _cancel_named(run_ids: list[str], environment: str, *, as_json: bool) -> None:
    async def cancelled(caller: Caller) -> dict[str, bool]:
        return {run_id: await caller.client.runs.cancel(run_id) for run_id in run_ids}

    answers = call(environment, cancelled)
    if as_json:
        printing.as_json([{"id": run_id, "is_cancelled": is_cancelled} for run_id, is_cancelled in answers.items()])
        return
    for run_id, is_cancelled in answers.items():
        print(run_id, "is cancelled" if is_cancelled else "had already ended")


@app.command()
@grouped(query=filters.SELECTING, changes=overrides.CHANGING)
def replay(
    run_id: Annotated[str | None, typer.Argument(metavar="RUN", help="The run's id.")] = None,
    payload: Annotated[str | None, typer.Option(metavar="JSON", help="Another payload than the run had.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the new run's end and print its output.")] = False,
    *,
    changes: overrides.Overrides,
    is_filtered: bulk.Filtered = False,
    query: filters.Query,
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """Start a new run with the input and options of an old one, but for what is given here; or with --filter replay all
    runs that the options select, as they were."""
    selected = bulk.selected(query, is_filtered=is_filtered, is_named=run_id is not None)
    if selected is None:
        raise typer.Exit(_replay_named(run_id or "", payload, changes, environment, wait=wait, as_json=as_json))
    if wait or payload is not None or changes:
        raise ConfigError("--payload, --wait and the options of the new run are about one; leave them out, or name the run")

    async def replayed(caller: Caller) -> BulkRecord:
        return await bulk.carry_out(caller, lambda: caller.client.runs.bulk.replay(filter=selected))

    bulk.show(call(environment, replayed), done="replayed", as_json=as_json)


def _replay_named(
    run_id: str, payload: str | None, changes: TriggerOptions, environment: str, *, wait: bool, as_json: bool
) -> int:
    from detent.cli import trigger

    value = trigger.read_json("--payload", payload)

    async def replayed(caller: Caller) -> int:
        handle = await caller.client.runs.replay(run_id, payload=value, **changes)
        if wait:
            return trigger.show_end(await trigger.ended(caller, handle), as_json=as_json)
        trigger.show_handle(handle, as_json=as_json)
        return 0

    return call(environment, replayed)


@app.command()
def reschedule(
    run_id: RunArgument,
    delay: Annotated[str, typer.Argument(metavar="DELAY", help='From now, such as "30s" or "2h".')],
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """Give a delayed run another date, sooner or later."""
    run = call(environment, lambda caller: caller.client.runs.reschedule(run_id, delay))
    if as_json:
        printing.as_json(run)
    else:
        print(f"{run.id} starts {printing.ago(run.due_at) or 'now'}")
