"""`detent limits`: look at concurrency limits, pause them, and change what they allow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from detent.cli import failure, printing
from detent.cli.calling import call
from detent.cli.options import DEFAULT_ENVIRONMENT, Environment, Json

if TYPE_CHECKING:
    from detent.cli.calling import Caller
    from detent.protocol.flow import LimitChange, LimitRecord
    from detent.sdk.concurrency import RateLimit
    from detent.sdk.concurrency_limits import Bounds, RetrievedLimit

LimitArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="LIMIT", help="The limit's name or id; a task's inline limit is task/ID.")
]
KeyOption: TypeAlias = Annotated[str | None, typer.Option("--key", help="For this concurrency key alone.")]

NONE = "none"
_LABEL_WIDTH = 13

app = typer.Typer(
    name="limits", help="Look at concurrency limits, pause them, and change what they allow.", no_args_is_help=True
)


@app.command("list")
def list_(environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False) -> None:
    """List limits by name, with what goes on under them."""

    async def listed(caller: Caller) -> list[RetrievedLimit]:
        return [limit async for limit in caller.client.concurrency_limits.list(per_page=100)]

    found = call(environment, listed)
    if as_json:
        printing.as_json(found)
    elif not found:
        print(f'no worker has registered a limit in environment "{environment}"')
    else:
        printing.table(["LIMIT", "RUNNING", "QUEUED", "TOTAL", "PER KEY", "RATE", "STATE"], map(_row, found))


def _row(limit: RetrievedLimit) -> list[str]:
    bounds = [printing.bound(limit.total), printing.bound(limit.per_key), _rate(limit.rate)]
    return [limit.name, str(limit.running), str(limit.queued), *bounds, _state(is_paused=limit.paused)]


@app.command()
def show(limit: LimitArgument, environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False) -> None:
    """Show a limit, with the keys that have bounds of their own."""
    _show(call(environment, lambda caller: caller.client.concurrency_limits.retrieve(limit)), as_json=as_json)


@app.command("set")
def set_(
    limit: LimitArgument,
    total: Annotated[str | None, typer.Option(metavar="N|none", help="All runs that may execute at once.")] = None,
    per_key: Annotated[str | None, typer.Option(metavar="N|none", help="Those of each concurrency key.")] = None,
    key: KeyOption = None,
    ttl: Annotated[str | None, typer.Option(help="How long --key holds, at most 30d.  [default: 7d]")] = None,
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """Override what a limit allows, also over deploys: only what is given."""
    if key is None:
        bounds = _bounds(total, per_key, ttl)
        changed = call(environment, lambda caller: caller.client.concurrency_limits.override(limit, **bounds))
    else:
        bound = _key_bound(total, per_key)
        lifetime = "7d" if ttl is None else ttl
        changed = call(
            environment,
            lambda caller: caller.client.concurrency_limits.override(
                limit, concurrency_key=key, per_key=bound, ttl=lifetime
            ),
        )
    _show(changed, as_json=as_json)


def _bounds(total: str | None, per_key: str | None, ttl: str | None) -> Bounds:
    if ttl is not None:
        raise failure.UsageError("--ttl says how long the bound of one key holds: give --key, too")
    if total is None and per_key is None:
        raise failure.UsageError("there is nothing to set: give --total, --per-key, or both")
    bounds: Bounds = {}
    if total is not None:
        bounds["total"] = _number("--total", total)
    if per_key is not None:
        bounds["per_key"] = _number("--per-key", per_key)
    return bounds


def _key_bound(total: str | None, per_key: str | None) -> int:
    bound = None if per_key is None or total is not None else _number("--per-key", per_key)
    if bound is None:
        raise failure.UsageError("--key goes with a number as --per-key, and without --total")
    return bound


def _number(option: str, text: str) -> int | None:
    if text == NONE:
        return None
    if not text.isdecimal():
        raise failure.UsageError(f"{option} {text!r} must be a number of runs, or {NONE}")
    return int(text)


@app.command()
def reset(
    limit: LimitArgument, key: KeyOption = None, environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False
) -> None:
    """Go back to what the code declares."""
    _show(
        call(environment, lambda caller: caller.client.concurrency_limits.reset(limit, concurrency_key=key)),
        as_json=as_json,
    )


@app.command()
def pause(limit: LimitArgument, environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False) -> None:
    """Start no run any more that holds the limit; those that execute go on."""
    _show(call(environment, lambda caller: caller.client.concurrency_limits.pause(limit)), as_json=as_json)


@app.command()
def resume(limit: LimitArgument, environment: Environment = DEFAULT_ENVIRONMENT, as_json: Json = False) -> None:
    """Undo a pause."""
    _show(call(environment, lambda caller: caller.client.concurrency_limits.resume(limit)), as_json=as_json)


def _show(limit: RetrievedLimit, *, as_json: bool) -> None:
    if as_json:
        printing.as_json(limit)
        return
    for label, text in _facts(limit):
        if text:
            print(f"{label:<{_LABEL_WIDTH}}{text}")


def _facts(limit: RetrievedLimit) -> Iterator[tuple[str, str]]:
    yield "limit", limit.name
    yield "state", _state(is_paused=limit.paused)
    yield "running", str(limit.running)
    yield "queued", str(limit.queued)
    yield "total", printing.bound(limit.total)
    yield "per key", printing.bound(limit.per_key)
    yield "rate", _rate(limit.rate)
    for override in limit.key_overrides:
        yield "key", f"{override.concurrency_key}: {override.per_key}, ends {printing.ago(override.expires_at)}"


def _rate(rate: RateLimit | None) -> str:
    if rate is None:
        return ""
    from detent import duration

    return f"{rate.limit} in {printing.seconds(duration.parse(rate.period))}" + (" per key" if rate.per_key else "")


def _state(*, is_paused: bool) -> str:
    return "paused" if is_paused else "open"


@app.command()
def environment(
    number: Annotated[int | None, typer.Argument(metavar="[N]", min=0, help="Runs that may execute at once.")] = None,
    none: Annotated[bool, typer.Option("--none", help="As many as there are.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Start nothing any more; what executes goes on.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Undo a pause.")] = False,
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> None:
    """Limit or pause a whole environment; or show it."""
    if number is not None and none:
        raise failure.UsageError("give one of N and --none")
    if pause and resume:
        raise failure.UsageError("give one of --pause and --resume")
    changes = list(_changes(number, is_bound=none or number is not None, is_pause=pause, is_resume=resume))
    record = call(environment, lambda caller: _changed(caller, changes))
    if as_json:
        printing.as_json(record)
    else:
        state, bound = _state(is_paused=record.paused_at is not None), printing.bound(record.total)
        print(f'"{environment}" is {state}; limit: {bound}; {record.running} running, {record.queued} queued')


def _changes(number: int | None, *, is_bound: bool, is_pause: bool, is_resume: bool) -> Iterator[LimitChange]:
    from detent.protocol.flow import LimitKind, LimitRef, Override, Pause, Resume

    ref = LimitRef(kind=LimitKind.ENVIRONMENT)
    if is_bound:
        yield Override(ref=ref, total=number)
    if is_pause:
        yield Pause(ref=ref)
    if is_resume:
        yield Resume(ref=ref)


async def _changed(caller: Caller, changes: list[LimitChange]) -> LimitRecord:
    from detent.protocol.flow import LimitKind, LimitRef
    from detent.protocol.refusal import Refused, to_error

    for answer in await caller.backend.change_limits(changes) if changes else ():
        if isinstance(answer, Refused):
            raise to_error(answer)
    (record,) = await caller.backend.retrieve_limits([LimitRef(kind=LimitKind.ENVIRONMENT)])
    assert record is not None  # the call itself made the environment
    return record
